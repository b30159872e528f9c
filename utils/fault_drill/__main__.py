"""Runs fault drills and writes results/fault_drill/*.csv; exit status 1 if anything went wrong."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from lossyless.printing import forgive_output
from utils.fault_drill import coding, configs, corruption, environment, inputs, kills
from utils.fault_drill.trials import ROOT, Row, write

# Each takes the scale (1: the full drill) and the seed.
DRILLS: dict[str, Callable[[float, int], list[Row]]] = {
    "corruption": lambda scale, seed: corruption.run(scaled(10_000, scale), seed),
    "inputs": lambda scale, seed: inputs.run(scaled(300, scale), seed),
    "configs": lambda scale, seed: configs.run(scaled(500, scale), scaled(30, scale), seed),
    "coding": lambda _, seed: coding.run(seed),
    "environment": lambda _, seed: environment.run(seed),
    "kills": lambda scale, seed: kills.run(scaled(10, scale), [seed, seed + 1], scaled(3, scale)),
}


def scaled(n: int, scale: float) -> int:
    return max(1, round(n * scale))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m utils.fault_drill", description=__doc__)
    parser.add_argument("drills", nargs="*", choices=[[], *DRILLS], help="default: all")
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the trials")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "fault_drill")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # forked processes cannot use the threads of their parent
    is_bad = False
    for name in options.drills or DRILLS:
        print(f"[{name}]", flush=True)
        rows = DRILLS[name](options.scale, options.seed)
        write(options.out / f"{name}.csv", rows)
        is_bad |= any(row.is_bad for row in rows)
    return 1 if is_bad else 0


if __name__ == "__main__":
    forgive_output()
    sys.exit(main())
