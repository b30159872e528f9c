"""Curves and fronts over tables of results: of means over seeds, and of single runs."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from utils.frontier import pareto_front
from utils.plots import style

#: what metrics are called in figures, by the last part of their name
METRICS = {
    "rate": "rate (bits)",
    "n_bits": "coded size (bits)",
    "distortion": "distortion (bits)",
    "loss": "loss",
    "acc": "accuracy",
    "err": "error",
}
LINE = {
    "linewidth": 1.8,
    "marker": "o",
    "markersize": 5,
    "markeredgecolor": "white",
    "markeredgewidth": 0.6,
}
LABEL = "label"  # column of the names in the legend


def curve_plot(
    frame: pd.DataFrame,
    x: str,
    y: str,
    hue: Sequence[str],
    *,
    col: str | None = None,
    curve: Sequence[str] = (),
    is_log_x: bool = False,
) -> Figure:
    """Means with standard errors in both directions, joined by lines in the order of x.

    Parameters
    ----------
    frame : one row per point. Rows without x or y (NaN) are not drawn.
    x, y : metrics; `<metric>_mean` and `<metric>_sem` are columns. A standard error that is NaN
        (a single seed) is not drawn.
    hue : columns whose values give curves their colours.
    col : column with a panel for each of its values; None: one panel.
    curve : further columns whose values tell curves (of one colour) apart.
    is_log_x : logarithmic axis of base 2; what is not positive lies beyond its edge.

    Raises
    ------
    ValueError
        If the frame lacks a column or has no row to draw.
    """
    statistics = [f"{metric}_{part}" for metric in (x, y) for part in ("mean", "sem")]
    facets = [col] if col is not None else []
    frame = _drawable(frame, [*statistics, *hue, *facets, *curve], [f"{x}_mean", f"{y}_mean"])
    frame = frame.assign(**{LABEL: _labels(frame, hue)})
    colours = style.colours_of(frame[LABEL].unique())
    panels = list(frame.groupby(col, sort=False)) if col is not None else [("", frame)]

    figure, all_axes = style.make_panels(len(panels))
    for axes, (level, rows) in zip(all_axes, panels, strict=True):
        for (label, *_), points in rows.groupby([LABEL, *curve], sort=False, dropna=False):
            _draw_curve(axes, points.sort_values(f"{x}_mean"), x, y, colours[label])
        if is_log_x:
            axes.set_xscale("log", base=2)
        ylabel = metric_label(y) if axes is all_axes[0] else ""
        _finish(axes, title=style.pretty(level), xlabel=metric_label(x), ylabel=ylabel)
    _add_legend(all_axes[-1], colours)
    return figure


def pareto_plot(
    frame: pd.DataFrame,
    x: str,
    y: str,
    hue: Sequence[str],
    *,
    select: tuple[str, str],
    is_log_y: bool = False,
) -> Figure:
    """Single runs, and lines through those that no other run of their colour beats.

    The members of a front are chosen by other metrics than those that are drawn: the best of many
    runs on test data would look better than it is. So y need not fall along a line.

    Parameters
    ----------
    frame : one row per run. Rows without x or y (NaN) are not drawn.
    x, y : columns that are drawn.
    hue : columns whose values give runs their colours, and fronts.
    select : the two columns that choose the members of the fronts; both are costs. Rows that lack
        one of them (NaN) are on no front.
    is_log_y : logarithmic axis of base 2.

    Raises
    ------
    ValueError
        If the frame lacks a column or has no row to draw.
    """
    frame = _drawable(frame, [x, y, *hue, *select], [x, y])
    frame = frame.assign(**{LABEL: _labels(frame, hue)})
    colours = style.colours_of(frame[LABEL].unique())

    figure, axes = style.make_figure(5.0, 3.6)
    for label, runs in frame.groupby(LABEL, sort=False):
        axes.scatter(runs[x], runs[y], s=16, color=colours[label], alpha=0.35, linewidths=0)
        front = runs.iloc[pareto_front(*(runs[metric] for metric in select))].sort_values(x)
        axes.plot(front[x], front[y], color=colours[label], **LINE)
    if is_log_y:
        axes.set_yscale("log", base=2)
    _finish(axes, xlabel=metric_label(x), ylabel=metric_label(y))
    _add_legend(axes, colours)
    return figure


def metric_label(metric: str) -> str:
    """ "test/feat/rate" -> "rate (bits)"; unknown metrics keep their names."""
    return METRICS.get(metric.rsplit("/", 1)[-1], metric)


def _draw_curve(axes: Axes, points: pd.DataFrame, x: str, y: str, colour: str) -> None:
    axes.errorbar(
        points[f"{x}_mean"],
        points[f"{y}_mean"],
        xerr=np.nan_to_num(points[f"{x}_sem"]),
        yerr=np.nan_to_num(points[f"{y}_sem"]),
        color=colour,
        **LINE,
        elinewidth=1.2,
        capsize=2,
    )


def _finish(axes: Axes, **labels: str) -> None:
    style.polish(axes, **labels)
    axes.grid(color=style.FAINT, linewidth=0.8)
    axes.set_axisbelow(True)


def _add_legend(axes: Axes, colours: dict[str, str]) -> None:
    handles = [
        Line2D([], [], color=colour, linewidth=2.5, label=label)
        for label, colour in colours.items()
    ]
    style.add_legend(axes, handles)


def _labels(frame: pd.DataFrame, hue: Sequence[str]) -> list[str]:
    """Names of the rows' levels; of several columns, without what does not apply ("none")."""
    return [
        " ".join(style.pretty(level) for level in levels if str(level) != "none") or "none"
        for levels in zip(*(frame[column] for column in hue), strict=True)
    ]


def _drawable(frame: pd.DataFrame, columns: list[str], needed: list[str]) -> pd.DataFrame:
    """The rows that have values in the `needed` columns."""
    if missing := [column for column in columns if column not in frame.columns]:
        raise ValueError(
            f"the table has no column {', '.join(map(repr, missing))}: it has "
            f"{', '.join(map(repr, frame.columns))}"
        )
    rows = frame.dropna(subset=needed)
    if rows.empty:
        raise ValueError(
            f"no row of the table has both {' and '.join(needed)}, so there is nothing to draw"
        )
    return rows
