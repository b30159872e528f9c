"""Comparisons with a reference: measurements, ratios and goals."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Comparison:
    """One row of the table.

    Attributes
    ----------
    what : what is measured.
    against : what the reference is.
    unit : unit of `ours` and `reference`. For "/s", higher is better; for all others, lower.
    ours, reference : paired measurements. Where possible, each pair is measured back to back, so
        that other load on the machine affects both measurements.
    low, high : goal, as bounds on the ratio; without bounds, the row is for information only.
    n : size of the data, where it matters.
    """

    what: str
    against: str
    unit: str
    ours: Sequence[float]
    reference: Sequence[float]
    low: float = -math.inf
    high: float = math.inf
    n: str = ""

    @property
    def ratios(self) -> list[float]:
        return [o / r for o, r in zip(self.ours, self.reference, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the ratios ours / reference."""
        return median(self.ratios)

    @property
    def spread(self) -> float:
        """The median absolute deviation of the ratios, divided by their median."""
        return median(abs(ratio / self.ratio - 1) for ratio in self.ratios)

    @property
    def is_met(self) -> bool:
        return self.low <= self.ratio <= self.high

    @property
    def goal(self) -> str:
        if self.high == math.inf:
            return "" if self.low == -math.inf else f">= {self.low:g}"
        if self.low == -math.inf:
            return f"<= {self.high:g}"
        return f"{self.low:.4g} to {self.high:.4g}"

    @property
    def verdict(self) -> str:
        return ("ok" if self.is_met else "MISSED") if self.goal else ""


def compare_speed(
    what: str,
    against: str,
    ours: Callable[[], object],
    reference: Callable[[], object],
    *,
    sizes: tuple[int, int],
    n_repeats: int,
    low: float = -math.inf,
    clock: Callable[[], float] = time.process_time,
) -> Comparison:
    """Compare the examples per second of two functions, called alternately after a warm-up.

    Parameters
    ----------
    sizes : the numbers of examples that `ours` and `reference` process.
    low : the goal, which is the lowest acceptable ratio.
    clock : by default, the CPU time of this process, which other load hardly affects.
    """
    ours(), reference()
    pairs = [
        (sizes[0] / seconds(ours, clock), sizes[1] / seconds(reference, clock))
        for _ in range(n_repeats)
    ]
    return Comparison(what, against, "/s", *zip(*pairs, strict=True), low=low)


def seconds(
    function: Callable[[], object], clock: Callable[[], float] = time.perf_counter
) -> float:
    """Duration of a call, in wall-clock time by default."""
    start = clock()
    function()
    return clock() - start
