"""Runs benchmarks, writes tables to results/benchmark, and fails if a goal is missed.

Three more benchmarks run only on request: "features" compares feature compressors at equal
accuracy (see `utils.benchmarks.fewer_bits`), "experiments" estimates the hours that each experiment
takes, and "gpu" profiles training steps.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from lossyless.printing import forgive_output
from utils.aggregation.experiment import to_markdown
from utils.benchmarks import (
    coding,
    data,
    experiments,
    files,
    gpu,
    growth,
    resources,
    steps,
    tables,
    training,
)
from utils.benchmarks.comparison import Comparison
from utils.benchmarks.fewer_bits.__main__ import main as compare_features

SUBJECTS: dict[str, Callable[[bool], list[Comparison]]] = {
    "data": data.compare,
    "augmentation": data.compare_augmentation,
    "training": training.compare,
    "kernels": steps.compare_kernels,
    "coding": coding.compare,
    "files": files.compare,
    "access": files.compare_access,
    "hub": files.compare_hub,
    "growth": growth.compare,
    "memory": resources.compare_memory,
    "startup": resources.compare_startup,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks; return 1 if a goal is missed or a row is slower than in OLD, else 0."""
    parser = argparse.ArgumentParser(prog="bin/benchmark.sh", description=__doc__)
    only = [*SUBJECTS, "features", "experiments", "gpu"]
    parser.add_argument("--only", choices=only, help="run a single benchmark")
    parser.add_argument("--quick", action="store_true", help="a smoke test on less data")
    parser.add_argument("--match", default="", help="experiments: only names containing this text")
    about = "folder for tables; default: results/benchmark, or outputs/benchmark with --quick"
    parser.add_argument("--out", type=Path, help=about)
    about = "a CSV or folder from an earlier run, compared with NEW or, without NEW, with a new run"
    parser.add_argument("--compare", type=Path, nargs="+", metavar=("OLD", "NEW"), help=about)
    options = parser.parse_args(arguments)
    if options.only == "experiments":
        experiments.report(options.match)
        return 0
    if options.only == "features":
        compare_features([])
        return 0
    if options.only == "gpu":
        gpu.report(is_quick=options.quick)
        return 0
    paths = options.compare or []
    if len(paths) > 2:
        parser.error("--compare: expected OLD, or OLD and NEW")
    old, *rest = map(tables.read, paths) if paths else [None]
    new = rest[0] if rest else run(options)
    missed = new[new["verdict"] == "MISSED"]
    if old is None:
        return int(len(missed) > 0)
    print(f"\nmissed goals: {len(missed)} rows")
    print(tables.markdown(missed) if len(missed) else "")
    slower = tables.slower(old, new)
    print(f"\nslower than in {paths[0]}, by more than noise: {len(slower)} rows")
    print(to_markdown(slower.round(3)) if len(slower) else "")
    return int(len(missed) + len(slower) > 0)


def run(options: argparse.Namespace) -> pd.DataFrame:
    """Run the chosen benchmarks; write, print and return their results."""
    out = options.out or Path("outputs" if options.quick else "results", "benchmark")
    facts, found = tables.circumstances(), []
    for name in [options.only] if options.only else SUBJECTS:
        print(f"[{name}]", file=sys.stderr, flush=True)
        if rows := SUBJECTS[name](options.quick):  # empty if the benchmark was skipped
            found.append(tables.table_of(name, rows, **facts))
            tables.write(found[-1], out)
    if not found:
        raise SystemExit("nothing could be measured")
    print(tables.markdown(table := pd.concat(found)))
    return table


if __name__ == "__main__":
    forgive_output()
    sys.exit(main())
