"""Several metrics over the same axis in one figure."""

from collections.abc import Sequence
from typing import Literal

import pandas as pd
from matplotlib.figure import Figure

from utils.plots import style
from utils.plots.frames import (
    Names,
    add_legend,
    draw_curve,
    drawable,
    finish,
    metric_label,
    statistics,
)

Scale = Literal["twin", "normalised", "same"]


def superpose_plot(
    frame: pd.DataFrame,
    x: str,
    y: Sequence[str],
    *,
    scale: Scale,
    is_log_x: bool = False,
    names: Names | None = None,
) -> Figure:
    """A curve for each metric, over the same rates (or whatever x is).

    Parameters
    ----------
    frame : one row per point. Rows without x or one of the metrics (NaN) are not drawn.
    x, y : metrics; `<metric>_mean` and `<metric>_sem` are columns.
    scale : twin: an axis on either side, for two metrics; normalised: from the lowest mean of each
        metric (0) to its highest (1); same: all as they are, on one axis.
    is_log_x : logarithmic axis of base 2.
    names : what metrics are called instead.

    Raises
    ------
    ValueError
        If the frame lacks a column or has no row to draw, or the scale does not fit.
    """
    if scale == "twin" and len(y) != 2:
        raise ValueError(f"two axes are for two metrics, found {len(y)}: take another scale")
    frame = drawable(frame, statistics(x, *y), [f"{metric}_mean" for metric in (x, *y)])
    titles = [_full_label(metric, y, names) for metric in y]
    colours = dict(zip(titles, style.COLOURS, strict=False))
    figure, axes = style.make_figure(5.4, 3.6)
    all_axes = [axes, axes.twinx()] if scale == "twin" else [axes] * len(y)
    for metric, title, panel in zip(y, titles, all_axes, strict=True):
        points = _normalised(frame, metric) if scale == "normalised" else frame
        draw_curve(panel, points, x, metric, colours[title])
        if is_log_x:
            panel.set_xscale("log", base=2)
    label = {"twin": titles[0], "normalised": "normalised: lowest 0, highest 1", "same": ""}[scale]
    finish(axes, xlabel=metric_label(x, names), ylabel=label)
    if scale == "twin":
        _finish_twin(all_axes, titles, list(colours.values()))
    else:
        add_legend(axes, colours)
    return figure


def _finish_twin(all_axes: list, titles: list[str], colours: list[str]) -> None:
    """Axes in the colours of their curves, which need no legend then."""
    left, right = all_axes
    style.polish(right, ylabel=titles[1])
    right.spines["right"].set_visible(True)
    for axes, colour in zip(all_axes, colours, strict=True):
        axes.yaxis.label.set_color(colour)
        axes.tick_params(axis="y", labelcolor=colour)
    right.spines["left"].set_visible(False)
    right.set_zorder(left.get_zorder() + 1)


def _normalised(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    means, sems = statistics(metric)
    low, high = frame[means].min(), frame[means].max()
    span = high - low if high > low else 1.0
    return frame.assign(**{means: (frame[means] - low) / span, sems: frame[sems] / span})


def _full_label(metric: str, metrics: Sequence[str], names: Names | None) -> str:
    """The usual label, or the metric itself if two would be called the same."""
    label = metric_label(metric, names)
    return metric if [metric_label(m, names) for m in metrics].count(label) > 1 else label
