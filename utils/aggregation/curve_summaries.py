"""Rate-distortion curves in numbers: areas, rates at the lowest loss, gains over a baseline."""

import sys
from collections.abc import Mapping
from functools import partial
from math import nan

from pandas import DataFrame

from utils import tables
from utils.aggregation.experiment import Experiment
from utils.aggregation.rows import check_metrics, curve_keys, with_settings
from utils.composing import ConfigError
from utils.frontier import (
    area_under_front,
    bd_rate,
    front_of,
    rate_at,
    rate_gain,
)

OPTION = "aggregate.summarize_RD_curves"
INTERVAL = ("start_rate", "end_rate")  # the same for all curves
# numbers that are averaged over seeds, and their titles
NUMBERS = {
    "area": "area",
    "rate_at_min": "bits at its lowest",
    "rate_near_lossless": "bits near lossless",
    "min": "lowest",
    "gain": "gain (x)",
    "bd_rate": "BD-rate (%)",
    "near_lossless": "near lossless",
}


def summarize_RD_curves(
    experiment: Experiment,
    x: str,
    y: str,
    by: str = "dist",
    baseline: str | None = None,
    reference: Mapping[str, object] | None = None,
    tolerance: float = 0.01,
    where: Mapping[str, object] | None = None,
) -> None:
    """Write some numbers for each rate-distortion curve to `summarized_RD_curves_merged.csv`.

    A curve is what the runs of one seed give that differ in `rows.ALONG_CURVE` alone (beta): their
    Pareto front D(r), the lowest distortion at a rate of at most r, linear between runs. It may
    be any cost: with the loss of predictors, its lowest value is that of lossless prediction.

    - `area`: the integral of D(r) from `start_rate` to `end_rate`, which are the same for all
      curves of the table, so that they can be compared: where the last curve starts, and where the
      last one ends. A curve that ends earlier goes on at its lowest distortion.
    - `rate_at_min`: the lowest rate at which D(r) is at most `tolerance` above the curve's own
      minimum `min`.
    - `rate_near_lossless`: the same above one level for all curves, `near_lossless`: the mean of
      the reference without compression; if there is none, the lowest of all curves of that seed.
    - `gain`: how many times fewer bits the curve needs than the baseline's, at the lowest
      distortion that both reach; see `frontier.rate_gain`.
    - `bd_rate`: Bjontegaard delta rate, in percent; see `frontier.bd_rate`.

    Baselines are curves of the same seed; if there are several of these, of the same parameters.
    What one of the seeds has not, such as a near-lossless rate, is missing ("-"): the average of
    the lucky ones would be too good.

    Columns: the parameters in which curves differ; `n_seeds`; the runs of the curve that failed
    (`n_failed`) or are missing otherwise (`n_missing`); the interval; and as
    `<y>/<number>_mean` and `_sem`, over seeds, these numbers and `n_runs`, the runs of a curve.

    Parameters
    ----------
    experiment : whose runs are drawn.
    x : metric of the rate.
    y : metric of the distortion, or another cost.
    by : parameter that tells methods apart.
    baseline : its value that others are compared to; None: no comparison.
    reference : parameter -> value: the runs without compression.
    tolerance : in the unit of y; how much above the lowest is as good as that. The delta of the
        paper's rate-invariance theorem, if y is a loss.
    where : parameter -> value or values: which runs count; None: all.
    """
    frame = with_settings(experiment.merged(where, OPTION), [by])
    check_metrics(frame, [x, y], OPTION)
    level = None
    if reference is not None:
        level = float(experiment.merged(reference, f"{OPTION}.reference")[y].mean())
    keys = curve_keys(frame)
    curves = _curves(frame, keys, x, y)
    numbers = _numbers(curves, tolerance, level)
    if baseline is not None:
        _add_gains(numbers, curves, by, baseline, tolerance)
    summary = _summarise(numbers, y, _unfinished(experiment.summary(frame), keys))
    titles = {title: f"{y}/{number}" for number, title in NUMBERS.items()}
    titles = {title: metric for title, metric in titles.items() if f"{metric}_mean" in summary}
    level = titles.pop(NUMBERS["near_lossless"])
    caption = f"{y} against {x}; near lossless: up to {summary[f'{level}_mean'][0]:.4g}"
    if baseline is not None:
        caption += f"; gain and BD-rate are over {by} = {experiment.pretty(baseline)}"
    shown = tables.select(summary, titles, keys)
    experiment.save_table(summary, "summarized_RD_curves_merged", caption=caption, shown=shown)


def _curves(frame: DataFrame, keys: list[str], x: str, y: str) -> DataFrame:
    """A row for each curve: its parameters `keys`, seed, number of runs, and `curve`."""
    frame = frame.dropna(subset=[x, y])
    if frame.empty:
        raise ConfigError(f"{OPTION}: no run has both {x} and {y}")
    rows = []
    for levels, runs in frame.groupby([*keys, tables.SEED], sort=False, dropna=False):
        about = dict(zip([*keys, tables.SEED], levels, strict=True))
        rows.append(about | {"n_runs": len(runs), "curve": front_of(runs[x], runs[y])})
    return DataFrame(rows)


def _numbers(curves: DataFrame, tolerance: float, level: float | None) -> DataFrame:
    """A row for each curve: what it is worth by itself."""
    all_curves = list(curves["curve"])
    start = max(rates[0] for rates, _ in all_curves)
    end = max(rates[-1] for rates, _ in all_curves)
    numbers = curves.drop(columns="curve")
    numbers["area"] = [area_under_front(curve, start, end) for curve in all_curves]
    numbers["min"] = [distortions[-1] for _, distortions in all_curves]
    lowest = numbers.groupby(tables.SEED)["min"].transform("min") if level is None else level
    numbers["near_lossless"] = lowest + tolerance
    numbers["rate_at_min"] = [rate_at(c, c[1][-1] + tolerance) for c in all_curves]
    levels = zip(all_curves, numbers["near_lossless"], strict=True)
    numbers["rate_near_lossless"] = [rate_at(curve, level) for curve, level in levels]
    return numbers.assign(start_rate=start, end_rate=end)


def _add_gains(
    numbers: DataFrame, curves: DataFrame, by: str, baseline: str, tolerance: float
) -> None:
    """Add what each curve saves over the baseline of its seed."""
    baselines = curves[curves[by] == baseline] if by in curves else curves.iloc[:0]
    if baselines.empty:
        found = ", ".join(map(str, curves[by].unique())) if by in curves else "one value alone"
        print(
            f"left out: gains, for no curve has {by}={baseline} ({OPTION}.baseline); curves have "
            f"{found}",
            file=sys.stderr,
        )
        return
    # baselines that differ in a parameter are for curves that agree in it
    telling = [key for key in _keys(baselines) if baselines[key].nunique() > 1]
    lookup = {tuple(row[telling]): row["curve"] for _, row in baselines.iterrows()}
    pairs = [(row["curve"], lookup.get(tuple(row[telling]))) for _, row in curves.iterrows()]
    functions = {"gain": partial(rate_gain, tolerance=tolerance), "bd_rate": bd_rate}
    for name, function in functions.items():
        numbers[name] = [nan if base is None else function(c, base) for c, base in pairs]


def _summarise(
    numbers: DataFrame, y: str, unfinished: Mapping[tuple, tuple[int, int]]
) -> DataFrame:
    """Mean and standard error of each number over seeds; missing if one of the seeds lacks it."""
    keys = [key for key in _keys(numbers) if key != tables.SEED]
    names = [name for name in (*NUMBERS, "n_runs") if name in numbers]
    rows = []
    groups = numbers.groupby(keys, sort=False, dropna=False) if keys else [((), numbers)]
    for levels, curves in groups:
        n_failed, n_missing = unfinished.get(levels, (0, 0))
        row = dict(zip(keys, levels, strict=True))
        row |= {"n_seeds": len(curves), "n_failed": n_failed, "n_missing": n_missing}
        row |= {name: curves[name].iloc[0] for name in INTERVAL}
        for name in names:
            row[f"{y}/{name}_mean"] = curves[name].mean(skipna=False)
            row[f"{y}/{name}_sem"] = curves[name].sem(skipna=False)
        rows.append(row)
    return DataFrame(rows).sort_values(keys, ignore_index=True) if keys else DataFrame(rows)


def _unfinished(summary: DataFrame, keys: list[str]) -> dict[tuple, tuple[int, int]]:
    """How many runs of each curve failed, and how many are missing."""
    found: dict[tuple, tuple[int, int]] = {}
    for row in summary.to_dict("records"):
        levels = tuple(row[key] for key in keys)
        n_failed, n_missing = found.get(levels, (0, 0))
        found[levels] = n_failed + row["n_failed"], n_missing + row["n_missing"]
    return found


def _keys(curves: DataFrame) -> list[str]:
    """The parameters of curves, and their seed."""
    return [name for name in curves if name not in (*NUMBERS, *INTERVAL, "n_runs", "curve")]
