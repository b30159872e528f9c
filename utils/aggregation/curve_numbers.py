"""Mode `summarize_RD_curves`: rate-distortion curves in numbers.

A curve consists of the runs of one seed that differ only in `selection.ALONG_CURVE` (beta). Its
distortion may be any cost, such as the predictors' loss. The table contains these numbers, as
`<number>_mean` and `<number>_sem` over seeds:

- `AURD`: area under the curve, the rate integrated over the distortion between the curve's own end
  points (`pareto_front.area_under_rates`). Reaching lower distortions adds area, so areas are
  comparable only between curves with the same end points; `bd_rate` compares any curves that
  overlap. The reference and curves with a single run have no area.
- `min`: the lowest distortion.
- `rate_near_lossless`: the rate at the distortion `near_lossless`, interpolated linearly between
  runs (`pareto_front.rate_at`). `near_lossless` is `tolerance` above the mean distortion of the
  uncompressed reference or, without a reference, above the lowest distortion of all curves of the
  seed.
- `gain`: rate of the baseline divided by that of the curve, at `tolerance` above the lowest
  distortion that both reach (`pareto_front.rate_gain`).
- `bd_rate`: Bjontegaard delta rate relative to the baseline, in percent (`pareto_front.bd_rate`).
- `rate_val_mindist_curr`, `rate_val_mindist_all`: mean rate of the curve's runs, pooled over
  seeds, whose distortion is at most `tolerance` above the lowest among the curve's runs, or
  among all runs.
- `n_runs`: number of runs on the curve.

The baseline of a curve has the same seed, and the same values of all parameters in which the
baselines differ. Except for the pooled rates, a number is missing ("-") if any seed lacks it: an
average over only the seeds that reach the near-lossless distortion, for example, would be biased.
"""

import sys
from collections.abc import Sequence
from functools import partial
from math import nan

import pandas as pd
from pandas import DataFrame

from utils.aggregation import tables
from utils.aggregation.experiment import Experiment, Where, number
from utils.aggregation.metrics import select
from utils.aggregation.pareto_front import (
    area_under_rates,
    bd_rate,
    front_of,
    gaussian_bits,
    rate_at,
    rate_gain,
)
from utils.aggregation.selection import as_list, curve_keys

# numbers that are averaged over seeds, and their titles
NUMBERS = {
    "AURD": "area",
    "min": "lowest",
    "rate_near_lossless": "bits near lossless",
    "gain": "gain (x)",
    "bd_rate": "BD-rate (%)",
    "near_lossless": "near lossless",
}
# numbers that pool the runs of all seeds, and their titles
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
    reference: Where | None = None,
    tolerance: float = 0.01,
) -> None:
    """Write `summarized_RD_curves_merged`: a row for each distortion x and each curve."""
    frame = tables.with_settings(experiment.columns([*as_list(x), *mse_cols, y]), [by])
    uncompressed = frame.iloc[:0]
    if reference is not None:
        uncompressed = experiment.merged(reference, "reference")
    keys = curve_keys(frame)
    groups = frame.groupby(keys, sort=False, dropna=False) if keys else None
    frame = frame.assign(
        curve=0 if groups is None else groups.ngroup(),
        is_reference=frame[tables.GROUP].isin(uncompressed[tables.GROUP]),
    )
    parts, levels = [], []
    for metric in as_list(x):
        levels.append(None if reference is None else float(uncompressed[metric].mean()))
        curves = _curves(frame, keys, metric, y, is_mse=metric in mse_cols)
        _add_levels(curves, tolerance, levels[-1])
        if baseline is not None:
            _add_gains(curves, by, baseline, tolerance)
        table = _summarise(experiment, frame, curves, keys, metric, y, tolerance)
        parts.append(table.assign(distortion=metric))
    summary = pd.concat(parts, ignore_index=True)
    near = f"{tolerance:g} above the lowest of each seed"
    if reference is not None:
        near = ", ".join(number(level + tolerance) for level in levels)
    caption = f"{y} against {', '.join(as_list(x))}; near lossless: up to {near}"
    if baseline is not None:
        caption += f"; gain and BD-rate are relative to {by} = {experiment.pretty(baseline)}"
        if by == "dist" and any(metric.endswith("feat/distortion") for metric in as_list(x)):
            caption += "; only methods with the same target have comparable distortions"
    titles = {
        title: name
        for name, title in (NUMBERS | POOLED).items()
        if f"{name}_mean" in summary and name != "near_lossless"
    }
    shown = select(summary, titles, ["distortion", *keys] if len(parts) > 1 else keys)
    experiment.save_table(summary, "summarized_RD_curves_merged", caption=caption, shown=shown)


def _curves(frame: DataFrame, keys: list[str], x: str, y: str, *, is_mse: bool) -> DataFrame:
    """A row for each curve and seed: parameters `keys`, seed, points of the front, numbers."""
    frame = frame.dropna(subset=[x, y])
    if frame.empty:
        raise ValueError(f"no run has both {x} and {y}")
    rows = []
    for _, runs in frame.groupby(["curve", tables.SEED], sort=False):
        is_reference = runs["is_reference"].all()
        distortions = gaussian_bits(runs[x]) if is_mse else runs[x]
        points = front_of(runs[y], runs[x])
        rows.append(
            dict(runs.iloc[0][["curve", *keys, tables.SEED]])
            | {
                "points": points,
                "AURD": nan if is_reference else area_under_rates(distortions, runs[y]),
                "min": points[1][-1],
                "n_runs": len(runs),
            }
        )
    return DataFrame(rows)


def _add_levels(curves: DataFrame, tolerance: float, level: float | None) -> None:
    """Add the near-lossless distortion of each curve, and the curve's rate there."""
    lowest = curves.groupby(tables.SEED)["min"].transform("min") if level is None else level
    curves["near_lossless"] = lowest + tolerance
    pairs = zip(curves["points"], curves["near_lossless"], strict=True)
    curves["rate_near_lossless"] = [rate_at(points, level) for points, level in pairs]


def _add_gains(curves: DataFrame, by: str, baseline: str, tolerance: float) -> None:
    """Add the gain and the BD-rate of each curve relative to the baseline with the same seed."""
    baselines = curves[curves[by] == baseline] if by in curves else curves.iloc[:0]
    if baselines.empty:
        found = ", ".join(map(str, curves[by].unique())) if by in curves else "a single value"
        print(
            f"left out: gains: no curve has {by}={baseline} "
            f"(aggregate.summarize_RD_curves.baseline), only {found}",
            file=sys.stderr,
        )
        return
    parameters = curves.columns[1 : curves.columns.get_loc(tables.SEED)]
    shared = [*(key for key in parameters if baselines[key].nunique() > 1), tables.SEED]
    bases = {tuple(row[shared]): row["points"] for _, row in baselines.iterrows()}
    pairs = [(row["points"], bases.get(tuple(row[shared]))) for _, row in curves.iterrows()]
    functions = {"gain": partial(rate_gain, tolerance=tolerance), "bd_rate": bd_rate}
    for name, function in functions.items():
        curves[name] = [nan if base is None else function(c, base) for c, base in pairs]


def _summarise(
    experiment: Experiment,
    frame: DataFrame,
    curves: DataFrame,
    keys: list[str],
    x: str,
    y: str,
    tolerance: float,
) -> DataFrame:
    """A row for each curve: `NUMBERS` (missing if any seed lacks one) and `POOLED`."""
    done = frame.dropna(subset=[x, y])
    rows = []
    for curve, seeds in curves.groupby("curve", sort=False):
        all_runs = frame[frame["curve"] == curve]
        counts = experiment.summary(all_runs)[list(tables.COUNTS)].sum()
        counts["n_missing"] += tables.n_without(all_runs, [x, y])
        row = dict(seeds.iloc[0][keys]) | {"n_seeds": len(seeds)}
        row |= {name: int(counts[name]) for name in ("n_failed", "n_missing")}
        for name in (*NUMBERS, "n_runs"):
            if name in seeds:
                row[f"{name}_mean"] = seeds[name].mean(skipna=False)
                row[f"{name}_sem"] = seeds[name].sem(skipna=False)
        runs = done[done["curve"] == curve]
        for name, lowest in zip(POOLED, (runs[x].min(), done[x].min()), strict=True):
            near = runs[y][runs[x] <= lowest + tolerance]
            row |= {f"{name}_mean": near.mean(), f"{name}_sem": near.sem()}
        rows.append(row)
    summary = DataFrame(rows)
    return summary.sort_values(keys, key=tables.sortable, ignore_index=True) if keys else summary
