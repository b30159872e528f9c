"""Any column of a table against any other: points, lines or regressions, in a grid of panels."""

from collections.abc import Sequence
from typing import Literal

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from utils.plots import style
from utils.plots.frames import (
    LABEL,
    LINE,
    Names,
    colours_of,
    drawable,
    finish,
    labels,
    level_label,
    metric_label,
)

Kind = Literal["points", "lines", "regression"]
MARKERS = "osD^vPX<>*"
DASHES = ("-", "--", ":", "-.")


def scatter_plot(
    frame: pd.DataFrame,
    x: str,
    y: str,
    *,
    kind: Kind,
    hue: Sequence[str],
    style_by: str | None = None,
    col: str | None = None,
    row: str | None = None,
    line: Sequence[str] = (),
    is_log_x: bool = False,
    is_log_y: bool = False,
    names: Names | None = None,
) -> Figure:
    """A point for each row of a table; joined, or with a straight line fitted to them.

    Parameters
    ----------
    frame : one row per point. Rows without x or y (NaN) are not drawn. Where it has columns
        `<x>_sem` or `<y>_sem`, lines have these error bars.
    x, y : columns that hold numbers.
    kind : points; lines that join them in the order of x; or regression: points with a linear fit
        for each colour and its 95 % interval, of a bootstrap.
    hue : columns whose values give points their colours.
    style_by : column whose values give points their markers, and lines their dashes.
    col, row : columns with a column or row of panels for each of their values.
    line : further columns whose values tell lines (of one colour) apart.
    is_log_x, is_log_y : logarithmic axes, of base 2.
    names : what parameters, values and metrics are called instead.

    Raises
    ------
    ValueError
        If the frame lacks a column or has no row to draw.
    """
    given = [name for name in (style_by, col, row) if name is not None]
    frame = drawable(frame, [x, y, *hue, *given, *line], [x, y])
    frame = frame.assign(**{LABEL: labels(frame, hue, names)})
    colours = colours_of(frame, hue)
    markers = _styles(frame, style_by)
    rows, cols = (_levels(frame, name) for name in (row, col))
    width = 5.0 if len(cols) == 1 else 3.5 * len(cols)
    height = 3.6 if len(rows) == 1 else 2.8 * len(rows)
    figure = Figure((width, height), dpi=style.DPI, layout="constrained", facecolor="white")
    grid = figure.subplots(len(rows), len(cols), sharex=True, sharey=True, squeeze=False)
    for i, row_level in enumerate(rows):
        for j, col_level in enumerate(cols):
            axes = grid[i, j]
            points = _at(_at(frame, row, row_level), col, col_level)
            _draw(axes, points, x, y, kind, style_by, line, colours, markers)
            if is_log_x:
                axes.set_xscale("log", base=2)
            if is_log_y:
                axes.set_yscale("log", base=2)
            finish(
                axes,
                title=", ".join(
                    level_label(level, names) for level in (row_level, col_level) if level != ""
                ),
                xlabel=metric_label(x, names) if i == len(rows) - 1 else "",
                ylabel=metric_label(y, names) if j == 0 else "",
            )
    _add_legend(grid[0, -1], colours, markers if style_by else {}, names)
    return figure


def _draw(
    axes: Axes,
    points: pd.DataFrame,
    x: str,
    y: str,
    kind: Kind,
    style_by: str | None,
    line: Sequence[str],
    colours: dict[str, str],
    markers: dict[object, tuple[str, str]],
) -> None:
    """One panel."""
    keys = [LABEL] if kind == "regression" else [LABEL, *([style_by] if style_by else []), *line]
    for levels, group in points.groupby(keys, sort=False, dropna=False):
        colour = colours[levels[0]]
        marker, dash = markers[levels[1] if style_by and kind != "regression" else None]
        if kind == "lines":
            group = group.sort_values(x)
            errors = {
                f"{axis}err": group[column].fillna(0)
                for axis, column in (("x", f"{x}_sem"), ("y", f"{y}_sem"))
                if column in group
            }
            look = LINE | {"marker": marker, "linestyle": dash}
            axes.errorbar(group[x], group[y], **errors, color=colour, capsize=2, **look)
        elif kind == "points":
            look = {"color": colour, "marker": marker, "edgecolor": "white", "alpha": 0.8}
            axes.scatter(group[x], group[y], s=26, linewidth=0.4, **look)
        else:
            sns.regplot(
                data=group,
                x=x,
                y=y,
                ax=axes,
                color=colour,
                seed=0,
                fit_reg=group[x].nunique() > 1,
                scatter_kws={"s": 22, "edgecolor": "white", "linewidths": 0.4},
                line_kws={"linewidth": 1.8},
            )


def _levels(frame: pd.DataFrame, name: str | None) -> list[object]:
    return [""] if name is None else list(frame[name].unique())


def _at(frame: pd.DataFrame, name: str | None, level: object) -> pd.DataFrame:
    return frame if name is None else frame[frame[name] == level]


def _styles(frame: pd.DataFrame, name: str | None) -> dict[object, tuple[str, str]]:
    """Marker and dashes of each level; those of None are of all."""
    levels = [] if name is None else frame[name].unique()
    looks = {
        level: (MARKERS[i % len(MARKERS)], DASHES[i % len(DASHES)])
        for i, level in enumerate(levels)
    }
    return {None: (MARKERS[0], DASHES[0])} | looks


def _add_legend(
    axes: Axes,
    colours: dict[str, str],
    markers: dict[object, tuple[str, str]],
    names: Names | None,
) -> None:
    """A line for each colour, and a grey marker for each style."""
    handles = [Line2D([], [], color=c, linewidth=2.5, label=label) for label, c in colours.items()]
    handles += [
        Line2D([], [], color=style.LINE, marker=m, linestyle=d, label=level_label(level, names))
        for level, (m, d) in markers.items()
        if level is not None
    ]
    style.add_legend(axes, handles)
