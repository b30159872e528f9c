"""Axes for plots of tables: panels, labels, colours, curves, legends.

In all functions, `names` maps parameters, values and metrics to display names that replace the
default ones.
"""

import math
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from utils.plots import style

#: display names of metrics, keyed by the last part of the metric's name
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
LABEL = "label"  # column with the legend entries
Names = Mapping[str, str]


def metric_label(metric: str, names: Names) -> str:
    """Display name of a metric: "test/feat/rate" -> "rate (bits)"; unknown ones are unchanged."""
    return names.get(metric) or METRICS.get(metric.rsplit("/", 1)[-1], metric)


def level_label(level: object, names: Names) -> str:
    """Display name of a parameter's value."""
    return names.get(str(level)) or style.pretty(level)


def column_of(frame: pd.DataFrame, metric: str) -> str:
    """The column of a metric: its mean in a summary, the metric itself in a table of runs."""
    return f"{metric}_mean" if f"{metric}_mean" in frame else metric


def drawable(frame: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """The rows that have all of these metrics; ValueError if there are none."""
    rows = frame.dropna(subset=[column_of(frame, metric) for metric in metrics])
    if rows.empty:
        raise ValueError(f"no run has {' and '.join(metrics)}: there is nothing to draw")
    return rows


def with_labels(
    frame: pd.DataFrame, hue: Sequence[str], names: Names
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Add a column `LABEL` that names the levels of `hue`; also return a colour for each label.

    Renamed methods keep their colours.
    """
    labels, usual = _labels(frame, hue, names), _labels(frame, hue, {})
    colours = style.colours_of(dict.fromkeys(usual))
    by_label = {label: colours[name] for label, name in zip(labels, usual, strict=True)}
    return frame.assign(**{LABEL: labels}), by_label


def _labels(frame: pd.DataFrame, hue: Sequence[str], names: Names) -> list[str]:
    """Display names of each row's levels, omitting "none", which means "not applicable"."""
    return [
        " ".join(level_label(level, names) for level in levels if str(level) != "none") or "none"
        for levels in zip(*(frame[column] for column in hue), strict=True)
    ]


class _DecimalTicks(LogLocator):
    """Ticks at 1, 2, 3, 5, 10, ...; fewer over many decades, equally spaced in a small range."""

    def tick_values(self, vmin: float, vmax: float) -> list[float]:
        n_decades = math.log10(vmax / vmin) if 0 < vmin < vmax < math.inf else 1.0
        if n_decades < 0.7:
            return MaxNLocator(5).tick_values(vmin, vmax)
        self.set_params(subs=(1, 2, 3, 5) if n_decades < 1.5 else (1, 3) if n_decades < 3 else (1,))
        return super().tick_values(vmin, vmax)


def set_log(axis: Axis) -> None:
    """Use a logarithmic scale with decimal tick labels."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(_DecimalTicks())
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


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
    """Make a figure of panels with shared axes; return it with each panel's axes and rows.

    The axis labels name the metrics x and y. Each value in the columns `col` and `row` of `frame`
    gets a column or a row of panels; None: a single column or row.
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
                set_log(axes.xaxis)
            if is_log_y:
                set_log(axes.yaxis)
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
    """Connect points in the order of x; if the table has standard errors, draw error bars.

    `look` overrides the default style of lines and markers.
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
    """Set title, labels and ticks in the common style, and add a background grid."""
    style.polish(axes, **texts)
    axes.grid(color=style.FAINT, linewidth=0.8)
    axes.set_axisbelow(True)


def add_legend(axes: Axes, colours: Mapping[str, str], more: Sequence[Line2D] = ()) -> None:
    """Add a legend with one line per label, followed by additional handles."""
    handles = [Line2D([], [], color=c, linewidth=2.5, label=label) for label, c in colours.items()]
    style.add_legend(axes, [*handles, *more])
