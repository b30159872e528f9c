"""Runs fault drills and writes results/fault_drill/*.csv; exits with status 1 on bad outcomes."""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd
import torch

from lossyless.printing import forgive_output
from utils.fault_drill import configs, corruption, inputs, jobs
from utils.fault_drill.trials import ROOT, VERDICTS, Trials, is_bad, summarise

# Each takes the scale (1: the full drill) and the seed.
DRILLS: dict[str, Callable[[float, int], Iterable[Trials]]] = {
    "corruption": lambda scale, seed: corruption.trials(scaled(10_000, scale), seed),
    "inputs": lambda scale, seed: inputs.trials(scaled(300, scale), seed),
    "configs": lambda scale, seed: configs.trials(scaled(500, scale), scaled(12, scale), seed),
    "environment": lambda scale, seed: jobs.environment(scaled(20, scale), seed),
    "kills": lambda scale, seed: jobs.kills(scaled(10, scale), [seed, seed + 1]),
}


def scaled(n: int, scale: float) -> int:
    return max(1, round(n * scale))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m utils.fault_drill", description=__doc__)
    choices = [[], *DRILLS]  # argparse also checks the default, []
    parser.add_argument("drills", nargs="*", choices=choices, help="default: all")
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the trials to run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "fault_drill")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # forked processes cannot use their parent's threads
    options.out.mkdir(parents=True, exist_ok=True)
    has_failed = False
    for name in options.drills or DRILLS:
        print(f"[{name}]", flush=True)
        rows = []
        for trials in DRILLS[name](options.scale, options.seed):
            rows.append(summarise(trials, trials.outcomes(), options.seed))
            # so that an interrupted drill keeps its rows
            pd.DataFrame(rows).to_csv(options.out / f"{name}.csv", index=False)
        has_failed |= any(map(is_bad, rows))
    files = {file.stem: pd.read_csv(file) for file in options.out.glob("*.csv")}
    files.pop("summary", None)
    totals = pd.concat(files, names=["drill"]).groupby("drill")[["tried", *VERDICTS[::-1]]].sum()
    totals.to_csv(options.out / "summary.csv")
    print(totals.to_string())
    return 1 if has_failed else 0


if __name__ == "__main__":
    forgive_output()
    sys.exit(main())
