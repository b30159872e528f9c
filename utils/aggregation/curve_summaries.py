"""Rate-distortion curves in numbers: areas, rates at the lowest loss, gains over a baseline."""

import sys
from collections.abc import Mapping
from functools import partial
from math import nan

from pandas import DataFrame, Series

from utils import tables
from utils.aggregation.experiment import Experiment
from utils.aggregation.outputs import number
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
# of a curve, beside its parameters, its seed and its numbers
DETAILS = ("n_runs", "curve", "is_reference", "is_codec")
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
      last one ends. A curve that ends earlier goes on at its lowest distortion. Neither the
      reference nor a curve of a single run takes part: it has no area, and the interval is that of
      the others.
    - `rate_at_min`: the lowest rate at which D(r) is at most `tolerance` above the curve's own
      minimum `min`; see `frontier.rate_at`.
    - `rate_near_lossless`: the same above one level for all curves, `near_lossless`: the mean of
      the reference without compression; if there is none, the lowest of all curves of that seed.
    - `gain`: how many times fewer bits the curve needs than the baseline's, at the lowest
      distortion that both reach; see `frontier.rate_gain`.
    - `bd_rate`: Bjontegaard delta rate, in percent; see `frontier.bd_rate`.

    Baselines are curves of the same seed; if there are several of these, of the same parameters.
    Codecs are not trained and have no seed of their own: as baselines, those that were run with one
    seed alone are for the curves of all seeds. What one of the seeds has not, such as a
    near-lossless rate or a baseline, is missing ("-"): the average of the lucky ones would be too
    good.

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
    level, references = None, []
    if reference is not None:
        uncompressed = experiment.merged(reference, f"{OPTION}.reference")
        level, references = float(uncompressed[y].mean()), list(uncompressed[tables.GROUP])
    keys = curve_keys(frame)
    curves = _curves(frame.assign(is_reference=frame[tables.GROUP].isin(references)), keys, x, y)
    numbers = _numbers(curves, tolerance, level)
    if baseline is not None:
        _add_gains(numbers, curves, by, baseline, tolerance)
    summary = _summarise(numbers, y, _unfinished(experiment.summary(frame), keys))
    titles = {title: f"{y}/{name}" for name, title in NUMBERS.items()}
    titles = {title: metric for title, metric in titles.items() if f"{metric}_mean" in summary}
    del titles[NUMBERS["near_lossless"]]
    near = (
        f"{tolerance:g} above the lowest of each seed"
        if level is None
        else number(level + tolerance)
    )
    caption = f"{y} against {x}; near lossless: up to {near}"
    if baseline is not None:
        caption += f"; gain and BD-rate are over {by} = {experiment.pretty(baseline)}"
    shown = tables.select(summary, titles, keys)
    experiment.save_table(summary, "summarized_RD_curves_merged", caption=caption, shown=shown)


def _curves(frame: DataFrame, keys: list[str], x: str, y: str) -> DataFrame:
    """A row for each curve: its parameters `keys`, seed, and `DETAILS`."""
    frame = frame.dropna(subset=[x, y])
    if frame.empty:
        raise ConfigError(f"{OPTION}: no run has both {x} and {y}")
    rows = []
    for levels, runs in frame.groupby([*keys, tables.SEED], sort=False, dropna=False):
        about = dict(zip([*keys, tables.SEED], levels, strict=True))
        is_codec = "dist" in runs and (runs["dist"] == "none").all()  # without a loss
        details = len(runs), front_of(runs[x], runs[y]), runs["is_reference"].all(), is_codec
        rows.append(about | dict(zip(DETAILS, details, strict=True)))
    return DataFrame(rows)


def _numbers(curves: DataFrame, tolerance: float, level: float | None) -> DataFrame:
    """A row for each curve: what it is worth by itself."""
    all_curves = list(curves["curve"])
    has_area = (curves["n_runs"] > 1) & ~curves["is_reference"]
    start, end = _interval(curves["curve"][has_area])
    numbers = curves.drop(columns=["curve", "is_reference", "is_codec"])
    numbers["area"] = [
        area_under_front(curve, start, end) if has and start < end else nan
        for curve, has in zip(all_curves, has_area, strict=True)
    ]
    numbers["min"] = [distortions[-1] for _, distortions in all_curves]
    lowest = numbers.groupby(tables.SEED)["min"].transform("min") if level is None else level
    numbers["near_lossless"] = lowest + tolerance
    numbers["rate_at_min"] = [rate_at(c, c[1][-1] + tolerance) for c in all_curves]
    levels = zip(all_curves, numbers["near_lossless"], strict=True)
    numbers["rate_near_lossless"] = [rate_at(curve, level) for curve, level in levels]
    return numbers.assign(start_rate=start, end_rate=end)


def _interval(curves: Series) -> tuple[float, float]:
    """The rates at which the last curve starts and the last one ends; NaN without curves."""
    starts, ends = ([rates[i] for rates, _ in curves] for i in (0, -1))
    return max(starts, default=nan), max(ends, default=nan)


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
    telling = [key for key in _parameters(baselines) if baselines[key].nunique() > 1]
    of_seed = {(*row[telling], row[tables.SEED]): row["curve"] for _, row in baselines.iterrows()}
    codecs = baselines[baselines["is_codec"] & ~baselines.duplicated(telling or by, keep=False)]
    of_all = {tuple(row[telling]): row["curve"] for _, row in codecs.iterrows()}
    pairs = []
    for _, row in curves.iterrows():
        place = tuple(row[telling])
        base = of_seed.get((*place, row[tables.SEED]), of_all.get(place))
        pairs.append((row["curve"], base))
    functions = {"gain": partial(rate_gain, tolerance=tolerance), "bd_rate": bd_rate}
    for name, function in functions.items():
        numbers[name] = [nan if base is None else function(c, base) for c, base in pairs]


def _summarise(
    numbers: DataFrame, y: str, unfinished: Mapping[tuple, tuple[int, int]]
) -> DataFrame:
    """Mean and standard error of each number over seeds; missing if one of the seeds lacks it."""
    keys = _parameters(numbers)
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
    summary = DataFrame(rows)
    return summary.sort_values(keys, key=tables.sortable, ignore_index=True) if keys else summary


def _unfinished(summary: DataFrame, keys: list[str]) -> dict[tuple, tuple[int, int]]:
    """How many runs of each curve failed, and how many are missing."""
    found: dict[tuple, tuple[int, int]] = {}
    for row in summary.to_dict("records"):
        levels = tuple(row[key] for key in keys)
        n_failed, n_missing = found.get(levels, (0, 0))
        found[levels] = n_failed + row["n_failed"], n_missing + row["n_missing"]
    return found


def _parameters(curves: DataFrame) -> list[str]:
    """The parameters of curves."""
    others = (*NUMBERS, *INTERVAL, *DETAILS, tables.SEED)
    return [name for name in curves if name not in others]
