"""What plots of tables share: their lines, labels, legends and checks.

`names` are what parameters, values and metrics are called, instead of their usual names.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
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


def metric_label(metric: str, names: Names | None = None) -> str:
    """ "test/feat/rate" -> "rate (bits)"; unknown metrics keep their names."""
    return (names or {}).get(metric) or METRICS.get(metric.rsplit("/", 1)[-1], metric)


def level_label(level: object, names: Names | None = None) -> str:
    """What the value of a parameter is called."""
    return (names or {}).get(str(level)) or style.pretty(level)


def labels(frame: pd.DataFrame, hue: Sequence[str], names: Names | None = None) -> list[str]:
    """Names of the rows' levels; of several columns, without what does not apply ("none")."""
    return [
        " ".join(level_label(level, names) for level in levels if str(level) != "none") or "none"
        for levels in zip(*(frame[column] for column in hue), strict=True)
    ]


def colours_of(frame: pd.DataFrame, hue: Sequence[str]) -> dict[str, str]:
    """Colour of each label of a frame; renamed methods keep theirs."""
    usual = style.colours_of(dict.fromkeys(labels(frame, hue)))
    return {
        label: usual[name] for label, name in zip(frame[LABEL], labels(frame, hue), strict=True)
    }


def drawable(frame: pd.DataFrame, columns: Sequence[str], needed: Sequence[str]) -> pd.DataFrame:
    """The rows that have values in the `needed` columns.

    Raises
    ------
    ValueError
        If the frame lacks one of the columns or has no row to draw.
    """
    if missing := [column for column in columns if column not in frame.columns]:
        raise ValueError(
            f"the table has no column {', '.join(map(repr, missing))}: it has "
            f"{', '.join(map(repr, frame.columns))}"
        )
    rows = frame.dropna(subset=list(needed))
    if rows.empty:
        raise ValueError(
            f"no row of the table has both {' and '.join(needed)}, so there is nothing to draw"
        )
    return rows


def statistics(*metrics: str) -> list[str]:
    """Columns of a summary that hold these metrics."""
    return [f"{metric}_{part}" for metric in metrics for part in ("mean", "sem")]


def draw_curve(axes: Axes, points: pd.DataFrame, x: str, y: str, colour: str) -> None:
    """Means in the order of x, with standard errors; those that are NaN are not drawn."""
    points = points.sort_values(f"{x}_mean")
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


def finish(axes: Axes, **texts: str) -> None:
    """The common style, and a grid behind what is drawn."""
    style.polish(axes, **texts)
    axes.grid(color=style.FAINT, linewidth=0.8)
    axes.set_axisbelow(True)


def add_legend(axes: Axes, colours: Mapping[str, str], **options: object) -> None:
    """A line of each colour."""
    handles = [
        Line2D([], [], color=colour, linewidth=2.5, label=label)
        for label, colour in colours.items()
    ]
    style.add_legend(axes, handles, **options)
