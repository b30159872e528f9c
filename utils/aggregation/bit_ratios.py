"""Mode `summarize_bit_ratios`: ratio of the bits that two kinds of runs need at equal cost."""

import sys

import numpy as np
import pandas as pd
from sklearn.isotonic import isotonic_regression

from utils.aggregation import tables
from utils.aggregation.experiment import Experiment, Where, readable
from utils.aggregation.pareto_front import Curve, pareto_front
from utils.aggregation.selection import on_validation, restrict


def summarize_bit_ratios(
    experiment: Experiment,
    by: str,
    baseline: str,
    better: str,
    x: str = "test/comm/n_bits",
    y: str = "test/pred/err",
    reference: Where | None = None,
    within: float = 0.03,
) -> None:
    """Write `bit_ratios`: bits of the baseline divided by those of the better kind, at equal cost.

    The runs of each kind, averaged over seeds, form a Pareto front of bits x and cost y. Its points
    are selected on validation data, because selecting the best of many runs on test data is biased;
    if a metric was not measured on validation data, its test values are used. Between the points of
    a front, the logarithm of the bits is linear in the cost. Bits are compared at costs that lie in
    the ranges of both fronts and are at most `within` above the cost of the reference. The table
    has a row for each point of either front at such a cost, and for the highest such cost; the
    ratio is smallest in one of these rows. If there is no such cost, or if a kind has no run with
    both metrics, a message is printed instead.
    """
    frame = experiment.columns([x, y, by])
    kinds = [restrict(frame, {by: kind}, experiment.option) for kind in (baseline, better)]
    summaries = [experiment.summary(kind) for kind in kinds]
    fronts = [_front(summary, x, y) for summary in summaries]
    for kind, front in zip((baseline, better), fronts, strict=True):
        if front is None:
            print(f"left out: no run with {by}={kind} has both {x} and {y}", file=sys.stderr)
            return
    worst = np.inf
    if reference is not None:
        worst = experiment.merged(reference, "reference")[y].mean() + within
    rows = ratios(*fronts, worst=worst)
    if rows.empty:
        print(
            f"left out: no value of {y} up to {worst:.4g} is reached by both kinds", file=sys.stderr
        )
        return
    smallest = rows["ratio"].min()
    rows.columns = [y, f"bits, {baseline}", f"bits, {better}", "ratio"]
    for kind in ("n_failed", "n_missing"):
        rows[kind] = sum(int(summary[kind].sum()) for summary in summaries)
    rows["n_missing"] += sum(tables.n_without(kind, [x, y]) for kind in kinds)
    caption = f"{x} at equal {y}. Smallest ratio: {smallest:.3g}"
    experiment.save_table(rows, "bit_ratios", caption=caption, shown=readable(rows.iloc[:, :4]))


def ratios(baseline: Curve, better: Curve, worst: float = np.inf) -> pd.DataFrame:
    """Costs up to `worst`, in descending order, with the bits of both fronts and their ratio."""
    fronts = (baseline, better)
    reached = max(costs[-1] for _, costs in fronts)
    # the bits of a front are unknown at costs above that of its first point
    worst = min(worst, *(costs[0] for _, costs in fronts))
    nodes = np.unique(np.concatenate([*(costs for _, costs in fronts), [worst]]))[::-1]
    costs = nodes[(reached <= nodes) & (nodes <= worst)]
    bits = [bits_at(front, costs) for front in fronts]
    return pd.DataFrame({"cost": costs, "a": bits[0], "b": bits[1], "ratio": bits[0] / bits[1]})


def bits_at(front: Curve, costs: np.ndarray) -> np.ndarray:
    """Bits [N] of a front at costs [N] in its range, interpolated geometrically."""
    bits, known = front
    return np.exp(np.interp(costs, known[::-1], np.log(bits)[::-1]))


def _front(summary: pd.DataFrame, x: str, y: str) -> Curve | None:
    """The front of the runs that have both metrics; None if there are no such runs."""
    means = summary[[f"{x}_mean", f"{y}_mean"]]
    summary = summary[np.isfinite(means).all(axis=1)]
    chosen_by = [on_validation(m) if f"{on_validation(m)}_mean" in summary else m for m in (x, y)]
    members = pareto_front(*(summary[f"{metric}_mean"] for metric in chosen_by))
    if not len(members):
        return None
    return falling(*(summary[f"{metric}_mean"].to_numpy()[members] for metric in (x, y)))


def falling(bits: np.ndarray, costs: np.ndarray) -> Curve:
    """The strictly decreasing curve that is closest to the points [N].

    Neighbours whose cost does not decrease as the bits increase are merged into one point, which
    has their mean cost (isotonic regression) and the fewest bits among them.
    """
    order = np.argsort(bits, kind="stable")
    bits, costs = bits[order], isotonic_regression(costs[order], increasing=False)
    is_first = np.r_[True, np.diff(costs) < 0]
    return bits[is_first], costs[is_first]
