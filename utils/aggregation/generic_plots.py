"""Modes for custom figures: any metric against any other, or several metrics over one x axis."""

from collections.abc import Sequence
from itertools import cycle
from typing import Literal, get_args

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from utils.aggregation.experiment import Experiment, in_file_name
from utils.aggregation.selection import ALONG_CURVE, as_list, check_alike, curve_keys
from utils.configs.checks import ConfigError, check_known
from utils.plots.axes import (
    LABEL,
    Names,
    add_legend,
    column_of,
    draw_curve,
    drawable,
    finish,
    level_label,
    metric_label,
    panels,
    set_log,
    with_labels,
)
from utils.plots.style import COLOURS, LINE, make_figure, polish

Kind = Literal["points", "lines", "regression"]
Scale = Literal["twin", "normalised", "same"]
MARKERS = "osD^vPX<>*"
DASHES = ("-", "--", ":", "-.")


def plot_scatter_lines(
    experiment: Experiment,
    x: str,
    y: str,
    kind: Kind = "lines",
    hue: str | Sequence[str] = "dist",
    style: str | None = None,
    col: str | None = None,
    row: str | None = None,
    is_log_x: bool = False,
    is_log_y: bool = False,
    *,
    file: str | None = None,
) -> None:
    """Draw `scatter_lines_<y>_<x>`: metrics or numeric parameters against each other.

    If `kind` is "lines", points are means over seeds with standard errors; a line joins points that
    differ only in x, y and `selection.ALONG_CURVE`. With the other kinds, each run is a point.
    "regression" adds a linear fit for each colour, with its 95 % bootstrap confidence interval.
    `file` replaces the name of the figure.
    """
    check_known(f"{experiment.option}.kind", [kind], get_args(Kind))
    names = experiment.names
    shown = [*as_list(hue), *as_list(style), *as_list(col), *as_list(row)]
    frame = experiment.columns([x, y, *shown])
    keys = [LABEL] if kind == "regression" else [LABEL, *as_list(style)]
    if kind == "lines":
        frame = experiment.summary(frame)
        keys += [key for key in curve_keys(frame) if key not in (x, y, style)]
    for column in (column_of(frame, x), column_of(frame, y)):  # parameters are stored as strings
        frame = frame.assign(**{column: pd.to_numeric(frame[column], "coerce")})
    points, colours = with_labels(drawable(frame, [x, y]), as_list(hue), names)
    looks = _looks(points, style)
    logs = {"is_log_x": is_log_x, "is_log_y": is_log_y}
    figure, grid = panels(points, x, y, names, col=col, row=row, **logs)
    for axes, rows in grid:
        for levels, group in rows.groupby(keys, sort=False, dropna=False):
            marker, dash = looks[levels[1] if style and kind != "regression" else None]
            colour = colours[levels[0]]
            if kind == "lines":
                draw_curve(axes, group, x, y, colour, marker=marker, linestyle=dash)
            elif kind == "points":
                look = {"marker": marker, "edgecolor": "white", "alpha": 0.8, "linewidth": 0.4}
                axes.scatter(group[x], group[y], s=26, color=colour, **look)
            else:
                _draw_regression(axes, group, x, y, colour)
    n_cols = 1 if col is None else points[col].nunique()
    add_legend(figure.axes[n_cols - 1], colours, _style_handles(looks, names, kind))
    experiment.save_figure(figure, file or f"scatter_lines_{in_file_name(y)}_{in_file_name(x)}")


def _draw_regression(axes: Axes, points: pd.DataFrame, x: str, y: str, colour: str) -> None:
    sns.regplot(
        x=points[x].to_numpy(),  # arrays rather than Series, so that seaborn keeps the axis labels
        y=points[y].to_numpy(),
        ax=axes,
        color=colour,
        seed=0,
        fit_reg=points[x].nunique() > 1,
        scatter_kws={"s": 22, "edgecolor": "white", "linewidths": 0.4},
        line_kws={"linewidth": 1.8},
    )


def _looks(frame: pd.DataFrame, style: str | None) -> dict[object, tuple[str, str]]:
    """Marker and line style for each level of a column; the key None holds the defaults."""
    levels = [] if style is None else frame[style].unique()
    looks = zip(levels, zip(cycle(MARKERS), cycle(DASHES), strict=False), strict=False)
    return {None: (MARKERS[0], DASHES[0])} | dict(looks)


def _style_handles(looks: dict[object, tuple[str, str]], names: Names, kind: Kind) -> list[Line2D]:
    """Grey legend entries for the levels of the column that determines markers and line styles."""
    return [
        Line2D(
            [], [], color=LINE, marker=m, ls=dash * (kind == "lines"), label=level_label(k, names)
        )
        for k, (m, dash) in looks.items()
        if k is not None
    ]


def plot_superpose(
    experiment: Experiment,
    x: str,
    y: Sequence[str],
    scale: Scale = "twin",
    by: str | None = "dist",
    is_log_x: bool = False,
) -> None:
    """Draw `superpose[_<value>]`: several metrics of a curve over a common x axis.

    Raises ConfigError if the runs of a figure differ in more than the seed and
    `selection.ALONG_CURVE`.
    """
    option = experiment.option
    check_known(f"{option}.scale", [scale], get_args(Scale))
    if scale == "twin" and len(y) != 2:
        raise ConfigError(f"{option}.scale: twin axes need two metrics, found {len(y)}")
    frame = experiment.columns([x, *y, *as_list(by)])
    groups = [("", frame)] if by is None else frame.groupby(by, sort=False)
    for level, runs in groups:
        title = f"the runs with {by} = {level}" if by else "the runs"
        check_alike(runs, option, title, but=ALONG_CURVE.__contains__)
        points = drawable(experiment.summary(runs), [x, *y])
        figure = _superpose(points, x, y, scale, is_log_x, experiment.names)
        experiment.save_figure(figure, f"superpose_{in_file_name(level)}" if by else "superpose")


def _superpose(
    points: pd.DataFrame, x: str, y: Sequence[str], scale: Scale, is_log_x: bool, names: Names
) -> Figure:
    labels = [metric_label(metric, names) for metric in y]
    titles = [
        metric if labels.count(label) > 1 else label
        for metric, label in zip(y, labels, strict=True)
    ]
    colours = dict(zip(titles, COLOURS, strict=False))
    figure, axes = make_figure(5.4, 3.6)
    all_axes = [axes, axes.twinx()] if scale == "twin" else [axes] * len(y)
    for metric, title, panel in zip(y, titles, all_axes, strict=True):
        shown = _normalised(points, metric) if scale == "normalised" else points
        draw_curve(panel, shown, x, metric, colours[title])
        if is_log_x:
            set_log(panel.xaxis)
    label = {"twin": titles[0], "normalised": "normalised: lowest 0, highest 1", "same": ""}[scale]
    finish(axes, xlabel=metric_label(x, names), ylabel=label)
    if scale != "twin":
        add_legend(axes, colours)
        return figure
    left, right = all_axes
    polish(right, ylabel=titles[1])
    right.spines["right"].set_visible(True)
    for panel, colour in zip(all_axes, colours.values(), strict=True):  # instead of a legend
        panel.yaxis.label.set_color(colour)
        panel.tick_params(axis="y", labelcolor=colour)
    right.spines["left"].set_visible(False)
    right.set_zorder(left.get_zorder() + 1)
    return figure


def _normalised(points: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Rescale a metric so that its lowest mean is 0 and its highest mean is 1."""
    mean, sem = f"{metric}_mean", f"{metric}_sem"
    low, high = points[mean].min(), points[mean].max()
    span = high - low if high > low else 1.0
    return points.assign(**{mean: (points[mean] - low) / span, sem: points[sem] / span})
