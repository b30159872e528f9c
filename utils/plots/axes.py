"""Axes for plots of tables: panels, labels, colours, curves, legends.

`names` maps parameters, values and metrics to display names that replace the usual ones.
"""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from utils.plots import style

#: display names of metrics, by the last part of the name
METRICS = {
    "rate": "rate (bits)",
    "n_bits": "coded size (bits)",
    "distortion": "distortion (bits)",
    "loss": "loss",
    "acc": "accuracy",
    "err": "error",
    "online_loss": "loss of the probe",
    "online_acc": "accuracy of the probe",
    "online_err": "error of the probe",
}
LINE = {
    "linewidth": 1.8,
    "marker": "o",
    "markersize": 5,
    "markeredgecolor": "white",
    "markeredgewidth": 0.6,
}
LABEL = "label"  # column of the names in the legend
Names = Mapping[str, str]


def metric_label(metric: str, names: Names) -> str:
    """ "test/feat/rate" -> "rate (bits)"; unknown metrics keep their names."""
    return names.get(metric) or METRICS.get(metric.rsplit("/", 1)[-1], metric)


def level_label(level: object, names: Names) -> str:
    """Display name of a parameter's value."""
    return names.get(str(level)) or style.pretty(level)


def column_of(frame: pd.DataFrame, metric: str) -> str:
    """The column of a metric: its mean in a summary, the metric itself in a table of runs."""
    return f"{metric}_mean" if f"{metric}_mean" in frame else metric


def drawable(frame: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """The rows that have all of these metrics.

    Raises
    ------
    ValueError
        If there are none.
    """
    rows = frame.dropna(subset=[column_of(frame, metric) for metric in metrics])
    if rows.empty:
        raise ValueError(f"no run has both {' and '.join(metrics)}: there is nothing to draw")
    return rows


def with_labels(
    frame: pd.DataFrame, hue: Sequence[str], names: Names
) -> tuple[pd.DataFrame, dict[str, str]]:
    """The frame with a column `LABEL` that names the levels of `hue`, and a colour for each label.

    Renamed methods keep their colours.
    """
    labels, usual = _labels(frame, hue, names), _labels(frame, hue, {})
    colours = style.colours_of(dict.fromkeys(usual))
    by_label = {label: colours[name] for label, name in zip(labels, usual, strict=True)}
    return frame.assign(**{LABEL: labels}), by_label


def _labels(frame: pd.DataFrame, hue: Sequence[str], names: Names) -> list[str]:
    """Display names of each row's levels, without "none", which means "does not apply"."""
    return [
        " ".join(level_label(level, names) for level in levels if str(level) != "none") or "none"
        for levels in zip(*(frame[column] for column in hue), strict=True)
    ]


def panels(
    frame: pd.DataFrame,
    x: str,
    y: str,
    names: Names,
    *,
    col: str | None = None,
    row: str | None = None,
    is_log_x: bool = False,
    is_log_y: bool = False,
) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    """A grid of panels with common axes, and the rows of `frame` of each panel.

    Parameters
    ----------
    x, y : metrics, for the labels.
    col, row : columns with a column or row of panels for each of their values; None: one.
    is_log_x, is_log_y : logarithmic axes, of base 2.

    Returns
    -------
    figure : its first row of panels comes first.
    panels : pairs of axes and rows.
    """
    rows, cols = ([""] if key is None else list(frame[key].unique()) for key in (row, col))
    width = 5.0 if len(cols) == 1 else 3.5 * len(cols)
    height = 3.6 if len(rows) == 1 else 2.8 * len(rows)
    figure = Figure((width, height), dpi=style.DPI, layout="constrained", facecolor="white")
    grid = figure.subplots(len(rows), len(cols), sharex=True, sharey=True, squeeze=False)
    found = []
    for i, row_level in enumerate(rows):
        for j, col_level in enumerate(cols):
            axes, levels = grid[i, j], [level for level in (row_level, col_level) if level != ""]
            if is_log_x:
                axes.set_xscale("log", base=2)
            if is_log_y:
                axes.set_yscale("log", base=2)
            finish(
                axes,
                title=", ".join(level_label(level, names) for level in levels),
                xlabel=metric_label(x, names) if i == len(rows) - 1 else "",
                ylabel=metric_label(y, names) if j == 0 else "",
            )
            points = frame if row is None else frame[frame[row] == row_level]
            found.append((axes, points if col is None else points[points[col] == col_level]))
    return figure, found


def draw_curve(
    axes: Axes, points: pd.DataFrame, x: str, y: str, colour: str, **look: object
) -> None:
    """Join points in the order of x; standard errors of a summary become error bars.

    `look` overrides how lines and markers look.
    """
    points = points.sort_values(column_of(points, x))
    errors = {
        f"{axis}err": points[f"{metric}_sem"].fillna(0)
        for axis, metric in (("x", x), ("y", y))
        if f"{metric}_sem" in points
    }
    look = LINE | {"elinewidth": 1.2, "capsize": 2} | look
    axes.errorbar(
        points[column_of(points, x)], points[column_of(points, y)], color=colour, **errors, **look
    )


def finish(axes: Axes, **texts: str) -> None:
    """Title, labels and ticks in the common style, and a grid in the background."""
    style.polish(axes, **texts)
    axes.grid(color=style.FAINT, linewidth=0.8)
    axes.set_axisbelow(True)


def add_legend(axes: Axes, colours: Mapping[str, str], more: Sequence[Line2D] = ()) -> None:
    """A legend with a line for each label, and more handles."""
    handles = [Line2D([], [], color=c, linewidth=2.5, label=label) for label, c in colours.items()]
    style.add_legend(axes, [*handles, *more])
