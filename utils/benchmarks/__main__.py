"""Runs all benchmarks, prints one table, and fails if a goal is missed.

Two more benchmarks run only on request: "experiments" estimates the hours that each experiment
takes, and "gpu" measures what training steps wait for.
"""

import argparse
import sys
from collections.abc import Callable, Sequence

from rich.console import Console

from lossyless.printing import forgive_output
from utils.benchmarks import coding, data, experiments, files, gpu, steps, training
from utils.benchmarks.comparison import Comparison, table_of

SUBJECTS: dict[str, Callable[[bool], list[Comparison]]] = {
    "data": data.compare,
    "augmentation": data.compare_augmentation,
    "training": training.compare,
    "kernels": steps.compare_kernels,
    "coding": coding.compare,
    "bits": coding.compare_bits,
    "files": files.compare,
    "hub": files.compare_hub,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks; exit status 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog="bin/benchmark.sh", description=__doc__)
    only = [*SUBJECTS, "experiments", "gpu"]
    parser.add_argument("--only", choices=only, help="run a single benchmark")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--match", default="", help="experiments: only names with this text")
    options = parser.parse_args(arguments)
    if options.only == "experiments":
        experiments.report(options.match)
        return 0
    if options.only == "gpu":
        gpu.report(is_quick=options.quick)
        return 0
    comparisons: list[Comparison] = []
    for name in [options.only] if options.only else SUBJECTS:
        print(f"[{name}]", file=sys.stderr, flush=True)
        comparisons += SUBJECTS[name](options.quick)
    # in files, as wide as in a terminal with 120 columns
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table_of(comparisons))
    return 0 if all(comparison.is_met for comparison in comparisons) else 1


if __name__ == "__main__":
    forgive_output()
    sys.exit(main())
