"""Results of benchmarks: measurements, their ratios to a reference, goals, and the table."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from rich.table import Table


@dataclass(frozen=True)
class Goal:
    """An interval for the ratio ours / reference."""

    low: float = -math.inf
    high: float = math.inf

    def is_met(self, ratio: float) -> bool:
        return self.low <= ratio <= self.high

    def __str__(self) -> str:
        if self.high == math.inf:
            return f">= {self.low:g}"
        if self.low == -math.inf:
            return f"<= {self.high:g}"
        return f"{self.low:.4g} to {self.high:.4g}"


@dataclass(frozen=True)
class Comparison:
    """One row of the table.

    Attributes
    ----------
    what : what is measured.
    against : what the reference is.
    unit : of `ours` and `reference`.
    ours, reference : measurements in pairs, taken one right after the other so that other load on
        the machine affects both.
    goal : of the median ratio.
    """

    what: str
    against: str
    unit: str
    ours: Sequence[float]
    reference: Sequence[float]
    goal: Goal

    @property
    def ratio(self) -> float:
        """The median of the ratios ours / reference."""
        return median(o / r for o, r in zip(self.ours, self.reference, strict=True))

    @property
    def is_met(self) -> bool:
        return self.goal.is_met(self.ratio)


def table_of(comparisons: Sequence[Comparison]) -> Table:
    """A row for each comparison, with the verdict "ok" or "MISSED"."""
    table = Table("what", "against", title="Medians of alternating runs; ratios of neighbours")
    for column in ("ours", "reference", "ratio", "goal"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict")
    for row in comparisons:
        table.add_row(
            row.what,
            row.against,
            _with_prefix(median(row.ours), row.unit),
            _with_prefix(median(row.reference), row.unit),
            f"{row.ratio:.3f}" if row.ratio < 10 else f"{row.ratio:,.0f}",
            str(row.goal),
            "[green]ok[/]" if row.is_met else "[bold red]MISSED[/]",
        )
    return table


def _with_prefix(value: float, unit: str) -> str:
    """A number with a metric prefix: 4.35 M/s, 12.1 ms."""
    prefixes = ((1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"))
    factor, prefix = next((p for p in prefixes if abs(value) >= p[0]), (1e-6, "u"))
    return f"{value / factor:.4g} {prefix}{unit}"


def seconds(function: Callable[[], object]) -> float:
    """Wall-clock time of a call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def alternate(
    ours: Callable[[], object], reference: Callable[[], object], n_repeats: int
) -> tuple[list[float], list[float]]:
    """Seconds of `n_repeats` alternating calls, after a warm-up call of each."""
    ours(), reference()
    pairs = [(seconds(ours), seconds(reference)) for _ in range(n_repeats)]
    return [o for o, _ in pairs], [r for _, r in pairs]
