"""Estimated hours of each experiment at the paper's size.

Numbers of steps follow from the configs. One step of each kind is measured on this device and
extrapolated to an H100. Data sets and weights are not needed: see `utils.benchmarks.steps`.
"""

import platform
import re
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import torch

from utils.benchmarks.plans import Plan, launches, plan
from utils.benchmarks.steps import measure
from utils.training.fitting import quiet

# 5 % of the peak of an H100 SXM, 989 TFLOP/s for dense half-precision matrices: typical of
# convolutional networks in mixed precision without tuning.
H100_FLOPS = 0.05 * 989e12
H100_SECONDS = 0.01  # overhead per step: the host launches hundreds of kernels
CPU_CORES = 2
STAGES = ("featurizer", "predictor", "tower")


def report(pattern: str = "") -> None:
    """Print a Markdown table of the scripts and experiments whose names contain `pattern`."""
    quiet()
    plans: dict[tuple[str, str], Plan] = {}
    trained: dict[str, set[str]] = {}
    for script, overrides in launches():
        row = script, overrides[0].partition("=")[2]
        if pattern in " ".join(row):
            print(f"[{' '.join(overrides)}]", file=sys.stderr, flush=True)
            found = plan(overrides, trained.setdefault(script, set()))
            plans[row] = plans.get(row, Plan(0, Counter(), 0)) + found
    print(f"{_device()}, torch {torch.__version__}, {date.today()}\n")
    columns = ["script", "experiment", "jobs", *(f"steps, {stage}" for stage in STAGES)]
    columns += [f"s a step, {stage}" for stage in STAGES]
    where = "this GPU" if torch.cuda.is_available() else f"{CPU_CORES} cores"
    columns += [f"hours, {where}", "hours, one H100 (computed)"]
    print(_line(columns), _line(["---", "---", *["--:"] * 9]), sep="\n")
    for row, found in plans.items():
        print(_line([*(f"`{name}`" for name in row), *_cells(found)]), flush=True)
    print("\nHow to read it: bin/README.md")


def _device() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()} (wall time)"
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.exists() else ""
    found = re.search("model name.*: (.*)", text)
    cpu = found.group(1) if found else platform.processor()
    return f"{CPU_CORES} cores of {cpu} (CPU time of one thread / {CPU_CORES})"


def _cells(found: Plan) -> list[str]:
    """Cells of a row, without the names."""
    cores = 1 if torch.cuda.is_available() else CPU_CORES
    n_steps, seconds, h100 = Counter(), Counter(), 0.0
    for step, n in found.steps.items():
        cost = measure(step)
        n_steps[step.stage] += n
        seconds[step.stage] += n * cost.seconds / cores
        h100 += n * (H100_SECONDS + cost.flops / H100_FLOPS)
    counts = {s: f"{n_steps[s]:,}" if n_steps[s] else "" for s in STAGES}
    if found.n_linear:
        counts["predictor"] = f"{found.n_linear} SVMs"
    means = (f"{seconds[s] / n_steps[s]:.2g}" if n_steps[s] else "" for s in STAGES)
    hours = (_hours(total) for total in (seconds.total(), h100))
    return [f"{found.n_jobs:,}", *counts.values(), *means, *hours]


def _hours(seconds: float) -> str:
    if 0 < seconds < 180:
        return "< 0.1"
    return f"{seconds / 3600:,.{0 if seconds > 36_000 else 1}f}" if seconds else ""


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
