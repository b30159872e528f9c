"""Curves and fronts over tables of results: of means over seeds, and of single runs."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from utils.aggregation.pareto_front import pareto_front
from utils.plots import style
from utils.plots.frames import (
    LABEL,
    LINE,
    Names,
    add_legend,
    colours_of,
    draw_curve,
    drawable,
    finish,
    labels,
    level_label,
    metric_label,
    statistics,
)


def curve_plot(
    frame: pd.DataFrame,
    x: str,
    y: str,
    hue: Sequence[str],
    *,
    col: str | None = None,
    curve: Sequence[str] = (),
    is_log_x: bool = False,
    is_log_y: bool = False,
    names: Names | None = None,
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
    is_log_x, is_log_y : logarithmic axes of base 2; what is not positive lies beyond their edges.
    names : what parameters, values and metrics are called instead.

    Raises
    ------
    ValueError
        If the frame lacks a column or has no row to draw.
    """
    facets = [col] if col is not None else []
    columns = [*statistics(x, y), *hue, *facets, *curve]
    frame = drawable(frame, columns, [f"{x}_mean", f"{y}_mean"])
    frame = frame.assign(**{LABEL: labels(frame, hue, names)})
    colours = colours_of(frame, hue)
    panels = list(frame.groupby(col, sort=False)) if col is not None else [("", frame)]

    figure, all_axes = style.make_panels(len(panels))
    for axes, (level, rows) in zip(all_axes, panels, strict=True):
        for (label, *_), points in rows.groupby([LABEL, *curve], sort=False, dropna=False):
            draw_curve(axes, points, x, y, colours[label])
        if is_log_x:
            axes.set_xscale("log", base=2)
        if is_log_y:
            axes.set_yscale("log", base=2)
        ylabel = metric_label(y, names) if axes is all_axes[0] else ""
        title = level_label(level, names)
        finish(axes, title=title, xlabel=metric_label(x, names), ylabel=ylabel)
    add_legend(all_axes[-1], colours)
    return figure


def pareto_plot(
    frame: pd.DataFrame,
    x: str,
    y: str,
    hue: Sequence[str],
    *,
    select: tuple[str, str],
    is_log_y: bool = False,
    names: Names | None = None,
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
    names : as above.

    Raises
    ------
    ValueError
        If the frame lacks a column or has no row to draw.
    """
    frame = drawable(frame, [x, y, *hue, *select], [x, y])
    frame = frame.assign(**{LABEL: labels(frame, hue, names)})
    colours = colours_of(frame, hue)

    figure, axes = style.make_figure(5.0, 3.6)
    for label, runs in frame.groupby(LABEL, sort=False):
        axes.scatter(runs[x], runs[y], s=16, color=colours[label], alpha=0.35, linewidths=0)
        front = runs.iloc[pareto_front(*(runs[metric] for metric in select))].sort_values(x)
        axes.plot(front[x], front[y], color=colours[label], **LINE)
    if is_log_y:
        axes.set_yscale("log", base=2)
    finish(axes, xlabel=metric_label(x, names), ylabel=metric_label(y, names))
    add_legend(axes, colours)
    return figure
