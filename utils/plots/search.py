"""Searches: their course, which settings matter, and the front of two objectives."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.plots import style
from utils.plots.curves import LINE, metric_label

COMPLETE, FAILED, UNDER_WAY = "complete", "failed", "under way"
MARKS = {FAILED: ("x", style.RED), UNDER_WAY: ("o", style.ORANGE)}
POINTS = {"s": 20, "linewidths": 0}


def history_plot(
    frame: pd.DataFrame, directions: Mapping[str, str], *, is_log_y: bool = False
) -> Figure:
    """Values by trial with the best so far, one panel per objective; trials without values are
    marked at the bottom.

    Parameters
    ----------
    frame : one row per trial: `number`, `state` (complete, failed, or under way), and the
        objectives, which are NaN unless it is complete.
    directions : objective -> minimize or maximize.
    is_log_y : logarithmic axes of values.
    """
    figure = Figure(figsize=(5.6, 2.6 * len(directions) + 0.4), dpi=style.DPI, layout="constrained")
    panels = figure.subplots(len(directions), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (objective, direction) in zip(panels, directions.items(), strict=True):
        done = frame[frame["state"] == COMPLETE].sort_values("number")
        axes.scatter(done["number"], done[objective], color=style.BLUE, alpha=0.45, **POINTS)
        best = np.minimum if direction == "minimize" else np.maximum
        line = best.accumulate(done[objective].to_numpy())
        label = f"{'lowest' if direction == 'minimize' else 'highest'} so far"
        axes.step(done["number"], line, where="post", color=style.BLUE, lw=1.8, label=label)
        if is_log_y:
            axes.set_yscale("log")
        _mark_others(axes, frame)
        _finish(axes, ylabel=_title(objective))
        style.add_legend(axes, loc="lower right", bbox_to_anchor=(1, 1), ncols=4, borderaxespad=0)
    panels[-1].set_xlabel("trial", fontsize=style.LABEL_SIZE, color=style.TEXT)
    return figure


def importance_plot(frame: pd.DataFrame) -> Figure:
    """Bars of the importance of each setting, most important first.

    Parameters
    ----------
    frame : indexed by setting; one column of shares (which sum to 1) for each objective.
    """
    frame = frame.loc[frame.mean(axis=1).sort_values(kind="stable").index]
    n_bars = len(frame.columns)
    height = 0.8 / n_bars
    longest = max(map(len, frame.index))
    figure, axes = style.make_figure(
        3.6 + 0.085 * longest, 1.2 + len(frame) * (0.14 + 0.16 * n_bars)
    )
    for i, (objective, colour) in enumerate(zip(frame.columns, style.COLOURS, strict=False)):
        places = np.arange(len(frame)) + (n_bars - 1 - 2 * i) * height / 2
        axes.barh(places, frame[objective], height=height, color=colour, label=_title(objective))
    axes.set_yticks(range(len(frame)), frame.index)
    _finish(axes, xlabel="share of the variance")
    if n_bars > 1:
        style.add_legend(axes, loc="lower right")
    else:
        axes.set_title(_title(frame.columns[0]), fontsize=style.TITLE_SIZE, color=style.TEXT)
    return figure


def front_plot(frame: pd.DataFrame, objectives: Sequence[str], *, is_log_y: bool = False) -> Figure:
    """All complete trials at their two objectives, and a line through those that no other beats.

    Parameters
    ----------
    frame : as above, and `is_best`: whether a trial is on the front.
    objectives : of the horizontal and of the vertical axis.
    is_log_y : logarithmic vertical axis.
    """
    x, y = objectives
    done, front = frame[frame["state"] == COMPLETE], frame[frame["is_best"]].sort_values(x)
    figure, axes = style.make_figure()
    axes.scatter(done[x], done[y], color=style.BLUE, alpha=0.4, label="trials", **POINTS)
    axes.plot(front[x], front[y], color=style.ORANGE, label="beaten by no other", **LINE)
    if is_log_y:
        axes.set_yscale("log")
    n_failed = int((frame["state"] == FAILED).sum())
    title = f"{n_failed} failed trial{'s' * (n_failed > 1)} not shown" if n_failed else ""
    _finish(axes, xlabel=_title(x), ylabel=_title(y))
    axes.set_title(title, fontsize=style.TICK_SIZE, color=style.LINE, loc="right")
    style.add_legend(axes)
    return figure


def _mark_others(axes: Axes, frame: pd.DataFrame) -> None:
    """Marks at the bottom for trials that have no values."""
    for state, (marker, colour) in MARKS.items():
        numbers = frame.loc[frame["state"] == state, "number"]
        if len(numbers):
            axes.scatter(
                numbers,
                np.full(len(numbers), 0.03),
                marker=marker,
                s=26,
                color=colour,
                label=state,
                transform=axes.get_xaxis_transform(),
                clip_on=False,
                zorder=3,
            )


def _finish(axes: Axes, **labels: str) -> None:
    style.polish(axes, **labels)
    axes.grid(color=style.FAINT, linewidth=0.8)
    axes.set_axisbelow(True)


def _title(objective: str) -> str:
    """ "val/comm/rate" -> "rate (bits), validation"."""
    label = metric_label(objective)
    return f"{label}, validation" if objective.startswith("val/") else label
