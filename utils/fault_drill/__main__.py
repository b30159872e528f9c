"""Runs fault drills and writes results/fault_drill/*.csv; exit status 1 if anything went wrong."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lossyless.printing import forgive_output
from utils.fault_drill import corruption, kills
from utils.fault_drill.trials import ROOT, Row, write

# Each takes the scale (1: the full drill) and the seed.
DRILLS: dict[str, Callable[[float, int], list[Row]]] = {
    "kills": lambda scale, seed: kills.run(scaled(20, scale), [seed, seed + 1], scaled(4, scale)),
    "corruption": lambda scale, seed: corruption.run(scaled(10_000, scale), seed),
}


def scaled(n: int, scale: float) -> int:
    return max(1, round(n * scale))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m utils.fault_drill", description=__doc__)
    parser.add_argument("drills", nargs="*", choices=[[], *DRILLS], help="default: all")
    parser.add_argument("--quick", action="store_true", help="a hundredth of the trials")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "fault_drill")
    options = parser.parse_args(arguments)
    is_bad = False
    for name in options.drills or DRILLS:
        print(f"[{name}]", flush=True)
        rows = DRILLS[name](0.01 if options.quick else 1, options.seed)
        write(options.out / f"{name}.csv", rows)
        is_bad |= any(row.is_bad for row in rows)
    return 1 if is_bad else 0


if __name__ == "__main__":
    forgive_output()
    sys.exit(main())
