"""Comparisons with a reference: measurements, ratios, goals, and the table of results."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from matplotlib.ticker import EngFormatter
from rich.table import Table


@dataclass(frozen=True)
class Comparison:
    """One row of the table.

    Attributes
    ----------
    what : what is measured.
    against : what the reference is.
    unit : unit of `ours` and `reference`.
    ours, reference : measurements in pairs, taken one right after the other so that other load on
        the machine affects both.
    low, high : the goal, bounds of the ratio.
    """

    what: str
    against: str
    unit: str
    ours: Sequence[float]
    reference: Sequence[float]
    low: float = -math.inf
    high: float = math.inf

    @property
    def ratio(self) -> float:
        """The median of the ratios ours / reference."""
        return median(o / r for o, r in zip(self.ours, self.reference, strict=True))

    @property
    def is_met(self) -> bool:
        return self.low <= self.ratio <= self.high

    @property
    def goal(self) -> str:
        if self.high == math.inf:
            return f">= {self.low:g}"
        if self.low == -math.inf:
            return f"<= {self.high:g}"
        return f"{self.low:.4g} to {self.high:.4g}"


def table_of(comparisons: Sequence[Comparison]) -> Table:
    """A row for each comparison, with the verdict "ok" or "MISSED"."""
    table = Table("what", "against", title="Medians of alternating runs; ratios of adjacent runs")
    for column in ("ours", "reference", "ratio", "goal"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict")
    for row in comparisons:
        format_unit = EngFormatter(row.unit)  # 4.35 M/s, 12.1 ms
        table.add_row(
            row.what,
            row.against,
            *(format_unit(float(f"{median(v):.4g}")) for v in (row.ours, row.reference)),
            f"{row.ratio:.3f}" if row.ratio < 10 else f"{row.ratio:,.0f}",
            row.goal,
            "[green]ok[/]" if row.is_met else "[bold red]MISSED[/]",
        )
    return table


def compare_speed(
    what: str,
    against: str,
    ours: Callable[[], object],
    reference: Callable[[], object],
    *,
    sizes: tuple[int, int],
    n_repeats: int,
    low: float,
) -> Comparison:
    """Compare the examples per second of two functions by calling them alternately after a warm-up.

    Parameters
    ----------
    sizes : the number of examples that `ours` processes, and that of `reference`.
    low : goal, the lowest ratio.
    """
    ours(), reference()
    pairs = [(sizes[0] / seconds(ours), sizes[1] / seconds(reference)) for _ in range(n_repeats)]
    return Comparison(what, against, "/s", *zip(*pairs, strict=True), low=low)


def seconds(function: Callable[[], object]) -> float:
    """Wall-clock time of a call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
