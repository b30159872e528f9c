"""Rate-distortion curves in numbers: areas, rates at the least distortion, gains."""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from math import nan

import pandas as pd
from pandas import DataFrame

from utils.aggregation import tables
from utils.aggregation.experiment import Experiment
from utils.aggregation.outputs import number
from utils.aggregation.pareto_front import (
    area_under_rates,
    bd_rate,
    front_of,
    gaussian_bits,
    rate_at,
    rate_gain,
)
from utils.aggregation.selection import as_list, check_metrics, curve_keys, with_settings
from utils.configs.composing import ConfigError

OPTION = "aggregate.summarize_RD_curves"
# of a curve, beside its parameters, its seed and its numbers
DETAILS = ("n_runs", "curve", "is_reference", "is_codec")
# numbers that are averaged over seeds, and their titles
NUMBERS = {
    "AURD": "area",
    "min": "lowest",
    "rate_near_lossless": "bits near lossless",
    "gain": "gain (x)",
    "bd_rate": "BD-rate (%)",
    "near_lossless": "near lossless",
}
# numbers over the runs of all seeds, and their titles
POOLED = {
    "rate_val_mindist_curr": "bits at its lowest",
    "rate_val_mindist_all": "bits at the lowest of all",
}


def summarize_RD_curves(
    experiment: Experiment,
    x: str | Sequence[str],
    y: str,
    mse_cols: Sequence[str] = (),
    by: str = "dist",
    baseline: str | None = None,
    reference: Mapping[str, object] | None = None,
    tolerance: float = 0.01,
    where: Mapping[str, object] | None = None,
) -> None:
    """Write some numbers for each rate-distortion curve to `summarized_RD_curves_merged.csv`.

    A curve is what the runs of one seed give that differ in `rows.ALONG_CURVE` alone (beta). Its
    distortion may be any cost: with the loss of predictors, the lowest is that of lossless
    prediction.

    - `AURD`: area under the curve, the rate integrated over the distortion, between the curve's
      own ends; see `frontier.area_under_rates`. Curves that reach lower distortions have more of
      it: areas compare only curves with the same ends, `bd_rate` all those that overlap. The
      reference, and a curve of a single run, have none.
    - `rate_val_mindist_curr`, `rate_val_mindist_all`: mean and standard error of the rates of the
      runs, of all seeds, that are at most `tolerance` above the least distortion of the curve's
      own runs, or of all runs in the table.
    - `min`: the lowest distortion.
    - `rate_near_lossless`: the lowest rate that one level for all curves takes, `near_lossless`:
      `tolerance` above the mean of the reference without compression; if there is none, above the
      lowest of all curves of that seed. Linear between runs, see `frontier.rate_at`.
    - `gain`: how many times fewer bits the curve needs than the baseline's, at the lowest
      distortion that both reach; see `frontier.rate_gain`.
    - `bd_rate`: Bjontegaard delta rate, in percent; see `frontier.bd_rate`.

    Baselines are curves of the same seed; if there are several of these, of the same parameters.
    Codecs are not trained and have no seed of their own: as baselines, those that were run with one
    seed alone are for the curves of all seeds. What one of the seeds has not, such as a
    near-lossless rate or a baseline, is missing ("-"): the average of the lucky ones would be too
    good.

    Columns: the `distortion`; the parameters in which curves differ; `n_seeds`; the runs of the
    curve that failed (`n_failed`) or are missing otherwise (`n_missing`); and as `<number>_mean`
    and `_sem` these numbers and `n_runs`, the runs of a curve.

    Parameters
    ----------
    experiment : whose runs are drawn.
    x : metrics of the distortion, or other costs; a part of the table for each.
    y : metric of the rate.
    mse_cols : those of x that are mean squared errors, in whatever unit: they are integrated over
        as `frontier.gaussian_bits`, for which the unit does not matter.
    by : parameter that tells methods apart.
    baseline : its value that others are compared to; None: no comparison.
    reference : parameter -> value: the runs without compression.
    tolerance : in the unit of x; how much above the lowest is as good as that. The delta of the
        paper's rate-invariance theorem, if x is a loss.
    where : parameter -> value or values: which runs count; None: all.
    """
    frame = with_settings(experiment.merged(where, OPTION), [by])
    check_metrics(frame, [*as_list(x), *mse_cols, y], OPTION)
    uncompressed = None
    if reference is not None:
        uncompressed = experiment.merged(reference, f"{OPTION}.reference")
    references = [] if uncompressed is None else list(uncompressed[tables.GROUP])
    frame = frame.assign(is_reference=frame[tables.GROUP].isin(references))
    keys = curve_keys(frame.drop(columns="is_reference"))
    unfinished = _unfinished(experiment.summary(frame.drop(columns="is_reference")), keys)
    parts, levels = [], []
    for metric in as_list(x):
        level = None if uncompressed is None else float(uncompressed[metric].mean())
        curves = _curves(frame, keys, metric, y, is_mse=metric in mse_cols)
        numbers = _numbers(curves, tolerance, level)
        if baseline is not None:
            _add_gains(numbers, curves, by, baseline, tolerance)
        part = _summarise(numbers, keys, unfinished, _pooled(frame, keys, metric, y, tolerance))
        parts.append(part.assign(distortion=metric))
        levels.append(level)
    summary = pd.concat(parts, ignore_index=True)
    titles = {title: name for name, title in (NUMBERS | POOLED).items()}
    titles = {title: name for title, name in titles.items() if f"{name}_mean" in summary}
    del titles[NUMBERS["near_lossless"]]
    near = (
        f"{tolerance:g} above the lowest of each seed"
        if uncompressed is None
        else ", ".join(number(level + tolerance) for level in levels)
    )
    caption = f"{y} against {', '.join(as_list(x))}; near lossless: up to {near}"
    if baseline is not None:
        caption += f"; gain and BD-rate are over {by} = {experiment.pretty(baseline)}"
    shown = tables.select(summary, titles, ["distortion", *keys] if len(parts) > 1 else keys)
    experiment.save_table(summary, "summarized_RD_curves_merged", caption=caption, shown=shown)


def _curves(frame: DataFrame, keys: list[str], x: str, y: str, *, is_mse: bool) -> DataFrame:
    """A row for each curve: its parameters `keys`, seed, AURD, and `DETAILS`."""
    frame = frame.dropna(subset=[x, y])
    if frame.empty:
        raise ConfigError(f"{OPTION}: no run has both {x} and {y}")
    rows = []
    for levels, runs in frame.groupby([*keys, tables.SEED], sort=False, dropna=False):
        about = dict(zip([*keys, tables.SEED], levels, strict=True))
        is_codec = "dist" in runs and (runs["dist"] == "none").all()  # without a loss
        is_reference = runs["is_reference"].all()
        distortions = gaussian_bits(runs[x]) if is_mse else runs[x]
        area = nan if is_reference else area_under_rates(distortions, runs[y])
        details = len(runs), front_of(runs[y], runs[x]), is_reference, is_codec
        rows.append(about | {"AURD": area} | dict(zip(DETAILS, details, strict=True)))
    return DataFrame(rows)


def _numbers(curves: DataFrame, tolerance: float, level: float | None) -> DataFrame:
    """A row for each curve: what it is worth by itself."""
    all_curves = list(curves["curve"])
    numbers = curves.drop(columns=["curve", "is_reference", "is_codec"])
    numbers["min"] = [distortions[-1] for _, distortions in all_curves]
    lowest = numbers.groupby(tables.SEED)["min"].transform("min") if level is None else level
    numbers["near_lossless"] = lowest + tolerance
    levels = zip(all_curves, numbers["near_lossless"], strict=True)
    numbers["rate_near_lossless"] = [rate_at(curve, level) for curve, level in levels]
    return numbers


def _pooled(
    frame: DataFrame, keys: list[str], x: str, y: str, tolerance: float
) -> dict[tuple, dict[str, float]]:
    """Of the curves of all seeds with the same parameters: the numbers of `POOLED`."""
    frame = frame.dropna(subset=[x, y])
    pooled = {}
    for levels, runs in frame.groupby(keys, sort=False, dropna=False) if keys else [((), frame)]:
        lowest = dict(zip(POOLED, (runs[x].min(), frame[x].min()), strict=True))
        pooled[levels] = {
            f"{name}_{statistic}": runs[y][runs[x] <= level + tolerance].agg(statistic)
            for name, level in lowest.items()
            for statistic in ("mean", "sem")
        }
    return pooled


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
    numbers: DataFrame,
    keys: list[str],
    unfinished: Mapping[tuple, tuple[int, int]],
    pooled: Mapping[tuple, Mapping[str, float]],
) -> DataFrame:
    """Mean and standard error of each number over seeds; missing if one of the seeds lacks it."""
    names = [name for name in (*NUMBERS, "n_runs") if name in numbers]
    rows = []
    groups = numbers.groupby(keys, sort=False, dropna=False) if keys else [((), numbers)]
    for levels, curves in groups:
        n_failed, n_missing = unfinished.get(levels, (0, 0))
        row = dict(zip(keys, levels, strict=True))
        row |= {"n_seeds": len(curves), "n_failed": n_failed, "n_missing": n_missing}
        for name in names:
            row[f"{name}_mean"] = curves[name].mean(skipna=False)
            row[f"{name}_sem"] = curves[name].sem(skipna=False)
        rows.append(row | pooled[levels])
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
    others = (*NUMBERS, *DETAILS, tables.SEED)
    return [name for name in curves if name not in others]
