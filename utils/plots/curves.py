"""Curves over aggregated results: data frames with `<metric>_mean` and `<metric>_sem` columns."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

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


def rate_distortion_plot(
    frame: pd.DataFrame,
    x: str = "test/feat/distortion",
    y: str = "test/feat/rate",
    hue: str = "dist",
    **kwargs: object,
) -> Figure:
    """Rate against distortion, one curve per method; see `curve_plot`."""
    return curve_plot(frame, x, y, hue, **({"title": "Rate-distortion"} | kwargs))


def curve_plot(
    frame: pd.DataFrame,
    x: str,
    y: str,
    hue: str,
    style_by: str | None = None,
    *,
    logx: bool = False,
    logy: bool = False,
    title: str = "",
) -> Figure:
    """Means with standard errors in both directions, joined by lines in the order of x.

    Parameters
    ----------
    frame : one row per point.
    x, y : metrics; `<metric>_mean` and `<metric>_sem` are columns. A standard error that is NaN
        (a single seed) is not drawn.
    hue, style_by : columns whose values give curves their colours, and their dashes and markers.
    logx, logy : logarithmic axis of base 2; what is not positive lies beyond its edge.

    Raises
    ------
    ValueError
        If the frame has no rows or lacks a column.
    """
    keys = [key for key in (hue, style_by) if key is not None]
    _check(frame, [f"{metric}_{part}" for metric in (x, y) for part in ("mean", "sem")] + keys)
    colours = style.colours_of(_levels(frame, hue))
    looks = {level: i for i, level in enumerate(_levels(frame, style_by))} if style_by else {}

    figure, axes = style.make_figure(5.0, 3.6)
    for levels, group in frame.groupby(keys, sort=False):
        look = looks[levels[-1]] if looks else 0
        _draw_curve(axes, group.sort_values(f"{x}_mean"), x, y, colours[levels[0]], look)
    if logx:
        axes.set_xscale("log", base=2)
    if logy:
        axes.set_yscale("log", base=2)
    style.polish(axes, title=title, xlabel=metric_label(x), ylabel=metric_label(y))
    axes.grid(color=style.FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    _add_legend(axes, colours, looks)
    return figure


def metric_label(metric: str) -> str:
    """ "test/feat/rate" -> "rate (bits)"; unknown metrics keep their names."""
    return METRICS.get(metric.rsplit("/", 1)[-1], metric)


def _draw_curve(axes: Axes, points: pd.DataFrame, x: str, y: str, colour: str, look: int) -> None:
    axes.errorbar(
        points[f"{x}_mean"],
        points[f"{y}_mean"],
        xerr=np.nan_to_num(points[f"{x}_sem"]),
        yerr=np.nan_to_num(points[f"{y}_sem"]),
        color=colour,
        linestyle=style.DASHES[look % len(style.DASHES)],
        marker=style.MARKERS[look % len(style.MARKERS)],
        linewidth=1.8,
        markersize=5,
        markeredgecolor="white",
        markeredgewidth=0.6,
        elinewidth=1.2,
        capsize=2,
    )


def _add_legend(axes: Axes, colours: dict[object, str], looks: dict[object, int]) -> None:
    handles = [
        Line2D([], [], color=colour, linewidth=2.5, label=style.pretty(level))
        for level, colour in colours.items()
    ]
    handles += [
        Line2D(
            [], [], color=style.LINE, linestyle=style.DASHES[i % len(style.DASHES)],
            marker=style.MARKERS[i % len(style.MARKERS)], markersize=5, label=style.pretty(level),
        )
        for level, i in looks.items()
    ]  # fmt: skip
    style.add_legend(axes, handles)


def _levels(frame: pd.DataFrame, column: str) -> list:
    """Values of a column in the order in which they appear."""
    return list(frame[column].unique())


def _check(frame: pd.DataFrame, columns: list[str]) -> None:
    if missing := [column for column in columns if column not in frame.columns]:
        raise ValueError(
            f"the table has no column {', '.join(map(repr, missing))}: it has "
            f"{', '.join(map(repr, frame.columns))}"
        )
    if frame.empty:
        raise ValueError("the table has no rows, so there is nothing to draw")
