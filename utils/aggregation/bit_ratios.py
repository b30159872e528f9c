"""How many times fewer bits one compressor needs than another for the same quality."""

import sys
from collections.abc import Mapping

import numpy as np
import pandas as pd
from sklearn.isotonic import isotonic_regression

from utils.aggregation.curve_figures import on_validation
from utils.aggregation.experiment import Experiment
from utils.aggregation.outputs import readable
from utils.aggregation.pareto_front import Curve, pareto_front
from utils.aggregation.selection import check_metrics, restrict, with_settings
from utils.configs.composing import ConfigError

OPTION = "aggregate.summarize_bit_ratios"


def summarize_bit_ratios(
    experiment: Experiment,
    by: str,
    baseline: str,
    better: str,
    x: str = "test/comm/n_bits",
    y: str = "test/pred/err",
    reference: Mapping[str, object] | None = None,
    within: float = 0.03,
    where: Mapping[str, object] | None = None,
) -> None:
    """Compare the bits of two kinds of runs at equal cost; writes `bit_ratios`.

    The runs of a kind, averaged over seeds, give a front: the lowest cost at so many bits. Which
    runs are on it is decided on validation data, for on test data the best of many is lucky, too;
    metrics that exist on test data alone decide there. Between the points of a front the logarithm
    of the bits is linear in the cost. Rows are the costs of the points of both fronts, for the
    ratio is smallest at one of these; as many as both fronts reach. If there are none, or no
    run of a kind has both metrics, there is no table, and the terminal says so.

    Parameters
    ----------
    experiment : whose runs are compared.
    by : parameter or setting that tells the kinds apart, e.g. rate.
    baseline, better : its two values; ratios are bits of the baseline over those of the other.
    x : metric of the bits.
    y : metric of the cost.
    reference : parameter -> value: the run without compression; None: all costs are compared.
    within : of the cost of the reference are the costs that are compared.
    where : parameter -> value or values: which runs are compared; None: all.
    """
    frame = with_settings(experiment.merged(None, OPTION), [by])
    check_metrics(frame, [x, y], OPTION)
    if by not in frame:
        raise ConfigError(f"{OPTION}.by: the runs have no parameter or setting '{by}'")
    kinds = [
        restrict(frame, {**(where or {}), by: kind}, f"{OPTION}.where")
        for kind in (baseline, better)
    ]
    summaries = [experiment.summary(kind) for kind in kinds]
    fronts = [_front(summary, x, y) for summary in summaries]
    # without a table here, the others are worth having all the same
    for kind, front in zip((baseline, better), fronts, strict=True):
        if front is None:
            print(f"left out: no run with {by}={kind} has both {x} and {y}", file=sys.stderr)
            return
    worst = np.inf
    if reference is not None:
        runs = restrict(frame, reference, f"{OPTION}.reference")
        worst = runs[y].mean() + within
    rows = ratios(*fronts, worst=worst)
    if rows.empty:
        print(f"left out: no {y} up to {worst:.4g} that both kinds reach", file=sys.stderr)
        return
    smallest = rows["ratio"].min()
    rows.columns = [y, f"bits, {baseline}", f"bits, {better}", "ratio"]
    for kind in ("n_failed", "n_missing"):
        rows[kind] = sum(int(summary[kind].sum()) for summary in summaries)
    caption = f"{x} at equal {y}. Smallest ratio: {smallest:.3g}"
    experiment.save_table(rows, "bit_ratios", caption=caption, shown=readable(rows.iloc[:, :4]))


def ratios(baseline: Curve, better: Curve, worst: float = np.inf) -> pd.DataFrame:
    """Costs, bits of both fronts at these costs, and their ratio; the lowest cost comes last.

    Parameters
    ----------
    baseline, better : fronts.
    worst : costs above this are left out.
    """
    fronts = (baseline, better)
    reached = max(costs[-1] for _, costs in fronts)
    # above the first point of a front, its bits are unknown
    worst = min(worst, *(costs[0] for _, costs in fronts))
    nodes = np.unique(np.concatenate([*(costs for _, costs in fronts), [worst]]))[::-1]
    costs = nodes[(reached <= nodes) & (nodes <= worst)]
    bits = [bits_at(front, costs) for front in fronts]
    return pd.DataFrame({"cost": costs, "a": bits[0], "b": bits[1], "ratio": bits[0] / bits[1]})


def bits_at(front: Curve, costs: np.ndarray) -> np.ndarray:
    """Bits [N] that a front needs for costs [N] in its range, geometric between its points."""
    bits, known = front
    return np.exp(np.interp(costs, known[::-1], np.log(bits)[::-1]))


def _front(summary: pd.DataFrame, x: str, y: str) -> Curve | None:
    """The front of the runs that have both metrics; None if there are none."""
    means = summary[[f"{x}_mean", f"{y}_mean"]]
    summary = summary[np.isfinite(means).all(axis=1)]
    chosen_by = [on_validation(m) if f"{on_validation(m)}_mean" in summary else m for m in (x, y)]
    members = pareto_front(*(summary[f"{metric}_mean"] for metric in chosen_by))
    if not len(members):
        return None
    return falling(*(summary[f"{metric}_mean"].to_numpy()[members] for metric in (x, y)))


def falling(bits: np.ndarray, costs: np.ndarray) -> Curve:
    """The closest curve that falls strictly through points [N] that need not.

    Where more bits cost more, neighbours share their mean cost (isotonic regression), and the
    fewest bits of those that share one are taken.
    """
    order = np.argsort(bits, kind="stable")
    bits, costs = bits[order], isotonic_regression(costs[order], increasing=False)
    is_first = np.r_[True, np.diff(costs) < 0]
    return bits[is_first], costs[is_first]
