"""What tasks lose against the rate, and the bits that each method needs to lose nothing."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.aggregation.pareto_front import front_of, rate_at
from utils.plots import style
from utils.plots.frames import (
    LABEL,
    Names,
    add_legend,
    colours_of,
    draw_curve,
    drawable,
    finish,
    labels,
    metric_label,
    statistics,
)


def invariance_plot(
    frame: pd.DataFrame,
    x: str,
    y: str,
    hue: Sequence[str],
    *,
    level: float,
    level_name: str,
    curve: Sequence[str] = (),
    is_log_x: bool = False,
    names: Names | None = None,
) -> Figure:
    """Curves of the downstream loss, a line at a level, and the rates at which curves reach it.

    Parameters
    ----------
    frame : one row per point. Rows without x or y (NaN) are not drawn.
    x, y : metrics of rate and loss; `<metric>_mean` and `<metric>_sem` are columns.
    hue : columns whose values give curves their colours.
    level : loss that is as good as the lowest.
    level_name : what it is called.
    curve : further columns whose values tell curves (of one colour) apart.
    is_log_x : logarithmic axis of base 2.
    names : what parameters, values and metrics are called instead.

    Raises
    ------
    ValueError
        If the frame lacks a column or has no row to draw.
    """
    frame = drawable(frame, [*statistics(x, y), *hue, *curve], [f"{x}_mean", f"{y}_mean"])
    frame = frame.assign(**{LABEL: labels(frame, hue, names)})
    colours = colours_of(frame, hue)
    figure, axes = style.make_figure(5.0, 3.6)
    entries = {}
    for (label, *_), points in frame.groupby([LABEL, *curve], sort=False, dropna=False):
        draw_curve(axes, points, x, y, colours[label])
        rate = rate_at(front_of(points[f"{x}_mean"], points[f"{y}_mean"]), level)
        _mark(axes, rate, level, colours[label])
        is_reached = bool((points[f"{y}_mean"] <= level).any())
        entries[_entry(label, rate, is_reached)] = colours[label]
    if is_log_x:
        axes.set_xscale("log", base=2)
    axes.axhline(level, color=style.LINE, linewidth=1.2, linestyle="--", zorder=1)
    finish(axes, xlabel=metric_label(x, names), ylabel=metric_label(y, names))
    axes.text(
        0.01,  # where rates are low and curves far above
        level,
        f"near lossless ({level_name})",
        transform=axes.get_yaxis_transform(),
        ha="left",
        va="bottom",
        fontsize=style.TICK_SIZE - 1.5,
        color=style.LINE,
    )
    add_legend(axes, entries)
    return figure


def _mark(axes: Axes, rate: float, level: float, colour: str) -> None:
    """A line from where a curve reaches the level down to its rate."""
    if np.isfinite(rate):
        axes.axvline(rate, color=colour, linewidth=1.2, linestyle=":", zorder=1)
        axes.plot(rate, level, marker="D", markersize=5, color=colour, zorder=4)


def _entry(label: str, rate: float, is_reached: bool) -> str:
    if np.isfinite(rate):
        return f"{label}: {rate:.3g} bits"
    # a curve that is nowhere as bad as that does not tell how few bits would do
    return f"{label}: {'fewer bits than drawn' if is_reached else 'not reached'}"
