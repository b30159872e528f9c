"""Searches: values by trial, importance of settings, Pareto front of two objectives."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.plots import style
from utils.plots.curves import LINE, metric_label

COMPLETE, FAILED, RUNNING = "complete", "failed", "running"
MARKS = {FAILED: ("x", style.RED), RUNNING: ("o", style.ORANGE)}
POINTS = {"color": style.BLUE, "alpha": 0.4, "s": 20, "linewidths": 0}


def history_plot(
    frame: pd.DataFrame, directions: Mapping[str, str], *, is_log_y: bool = False
) -> Figure:
    """Values by trial with the best so far, one panel per objective; trials without values are
    marked at the bottom.

    Parameters
    ----------
    frame : one row per trial: `number`, `state` (complete, failed or running), and the
        objectives, which are NaN unless it is complete.
    directions : objective -> minimize or maximize.
    is_log_y : logarithmic axes of values.
    """
    figure = Figure(figsize=(5.6, 2.6 * len(directions) + 0.4), dpi=style.DPI, layout="constrained")
    panels = figure.subplots(len(directions), 1, sharex=True, squeeze=False)[:, 0]
    done = frame[frame["state"] == COMPLETE].sort_values("number")
    for axes, (objective, direction) in zip(panels, directions.items(), strict=True):
        axes.scatter(done["number"], done[objective], **POINTS)
        best = np.minimum if direction == "minimize" else np.maximum
        line = best.accumulate(done[objective].to_numpy())
        label = f"{'lowest' if direction == 'minimize' else 'highest'} so far"
        axes.step(done["number"], line, where="post", color=style.BLUE, lw=1.8, label=label)
        for state, (marker, colour) in MARKS.items():
            numbers = frame.loc[frame["state"] == state, "number"]
            if len(numbers):
                bottom = {
                    "transform": axes.get_xaxis_transform(),
                    "clip_on": False,
                    "s": 26,
                    "zorder": 3,
                }
                height = np.full(len(numbers), 0.03)
                axes.scatter(numbers, height, color=colour, marker=marker, label=state, **bottom)
        _finish(axes, ylabel=_title(objective), is_log_y=is_log_y)
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
    width = 3.6 + 0.085 * max(map(len, frame.index))
    height = 1.2 + len(frame) * (0.14 + 0.16 * len(frame.columns))
    figure, axes = style.make_figure(width, height)
    reversed_ = frame[frame.columns[::-1]].rename(columns=_title)  # bars are drawn from below
    colours = style.COLOURS[: len(frame.columns)][::-1]
    reversed_.plot.barh(ax=axes, width=0.8, color=colours, legend=False)
    _finish(axes, xlabel="share of the variance")
    handles, _ = axes.get_legend_handles_labels()
    style.add_legend(axes, handles[::-1], loc="lower right")
    return figure


def front_plot(frame: pd.DataFrame, objectives: Sequence[str], *, is_log_y: bool = False) -> Figure:
    """All complete trials at their two objectives, and their Pareto front.

    Parameters
    ----------
    frame : as above, and `is_best`: whether a trial is on the front.
    objectives : of the horizontal and of the vertical axis.
    is_log_y : logarithmic vertical axis.
    """
    x, y = objectives
    done, front = frame[frame["state"] == COMPLETE], frame[frame["is_best"]].sort_values(x)
    figure, axes = style.make_figure()
    axes.scatter(done[x], done[y], label="trials", **POINTS)
    axes.plot(front[x], front[y], color=style.ORANGE, label="Pareto front", **LINE)
    _finish(axes, xlabel=_title(x), ylabel=_title(y), is_log_y=is_log_y)
    if n_failed := int((frame["state"] == FAILED).sum()):
        title = f"{n_failed} failed trial{'s' * (n_failed > 1)} not shown"
        axes.set_title(title, fontsize=style.TICK_SIZE, color=style.LINE, loc="right")
    style.add_legend(axes)
    return figure


def _finish(axes: Axes, *, is_log_y: bool = False, **labels: str) -> None:
    style.polish(axes, **labels)
    if is_log_y:
        axes.set_yscale("log")
    axes.grid(color=style.FAINT, linewidth=0.8)
    axes.set_axisbelow(True)


def _title(objective: str) -> str:
    """ "val/comm/rate" -> "rate (bits), validation"."""
    label = metric_label(objective)
    return f"{label}, validation" if objective.startswith("val/") else label
