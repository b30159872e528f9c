"""Modes that draw trade-offs: rate-distortion curves, invariance curves, Pareto fronts."""

from collections.abc import Sequence

import numpy as np

from utils.aggregation.experiment import Experiment, Where, in_file_name
from utils.aggregation.generic_plots import plot_scatter_lines
from utils.aggregation.pareto_front import front_of, pareto_front, rate_at
from utils.aggregation.selection import as_list, curve_keys, on_validation
from utils.configs.checks import ConfigError
from utils.plots import style
from utils.plots.axes import LABEL, LINE, add_legend, draw_curve, drawable, panels, with_labels


def plot_all_RD_curves(
    experiment: Experiment, x: str | Sequence[str], y: str, **options: object
) -> None:
    """Draw `all_RD_curves_<x>` for each x: rate against distortion, with error bars over seeds.

    A curve joins runs that differ only in the seed and `selection.ALONG_CURVE`. Runs that lack a
    metric are left out of its figure; classical codecs, for example, have no distortion. `options`
    are those of `plot_scatter_lines`.
    """
    for metric in as_list(x):
        file = f"all_RD_curves_{in_file_name(metric)}"
        plot_scatter_lines(experiment, metric, y, file=file, **options)


def plot_invariance_RD_curve(
    experiment: Experiment,
    x: str,
    desirable: str,
    hue: str | Sequence[str] = "dist",
    reference: Where | None = None,
    tolerance: float = 0.01,
    is_log_x: bool = False,
) -> None:
    """Draw `invariance_RD_curve`: the loss of a downstream task against the rate.

    The invariance distortion H[M(X)|Z] (section 3 of the paper) is the information about the
    maximal invariant M(X) that a representation Z lacks. All invariant tasks depend on X only
    through M(X). The loss of a predictor on such a task estimates this distortion, so compressors
    with different reconstruction targets can be compared. A dashed line marks near-lossless
    prediction: `tolerance` above the mean loss of the `reference`, or above the lowest mean of all
    curves. The legend gives the lowest rate at which each curve reaches this line.
    """
    names = experiment.names
    summary = experiment.summary(experiment.columns([x, desirable, *as_list(hue)]))
    if reference is None:
        level, level_name = summary[f"{desirable}_mean"].min(), "lowest"
    else:
        runs = experiment.merged(reference, "reference")
        level, level_name = runs[desirable].mean(), "uncompressed"
    level += tolerance
    points, colours = with_labels(drawable(summary, [x, desirable]), as_list(hue), names)
    figure, [(axes, points)] = panels(points, x, desirable, names, is_log_x=is_log_x)
    entries = {}
    keys = [LABEL, *curve_keys(summary)]
    for (label, *_), curve in points.groupby(keys, sort=False, dropna=False):
        draw_curve(axes, curve, x, desirable, colours[label])
        losses = curve[f"{desirable}_mean"]
        rate = rate_at(front_of(curve[f"{x}_mean"], losses), level)
        if np.isfinite(rate):
            axes.axvline(rate, color=colours[label], linewidth=1.2, linestyle=":", zorder=1)
            axes.plot(rate, level, marker="D", markersize=5, color=colours[label], zorder=4)
            found = f"{rate:.3g} bits"
        else:
            # a curve that lies entirely below the level may need even fewer bits than plotted
            found = "fewer bits than plotted" if (losses <= level).any() else "not reached"
        entries[f"{label}: {found}"] = colours[label]
    axes.axhline(level, color=style.LINE, linewidth=1.2, linestyle="--", zorder=1)
    axes.text(  # at the left end, where rates are low and curves lie above the line
        0.01,
        level,
        f"near lossless ({level_name} + {tolerance:g})",
        transform=axes.get_yaxis_transform(),
        verticalalignment="bottom",
        fontsize=style.TICK_SIZE - 1.5,
        color=style.LINE,
    )
    add_legend(axes, entries)
    experiment.save_figure(figure, "invariance_RD_curve")


def plot_pareto_front(
    experiment: Experiment,
    x: str,
    y: str,
    hue: str | Sequence[str] = "dist",
    select: Sequence[str] | None = None,
    is_log_y: bool = False,
) -> None:
    """Draw `pareto_front_<y>_<x>`: all runs, and a line through the non-dominated ones.

    Each seed counts as a separate run, and all metrics are costs (`err` instead of `acc`). The
    points of a front are selected on validation data, because selecting the best of many runs on
    test data is biased. They are plotted at their test metrics, so a plotted front need not be
    monotone.
    """
    names = experiment.names
    select = [on_validation(x), on_validation(y)] if select is None else as_list(select)
    if len(select) != 2:
        raise ConfigError(
            f"{experiment.option}.select: expected two metrics or null, found {select}"
        )
    frame = experiment.columns([x, y, *as_list(hue), *select])
    points, colours = with_labels(drawable(frame, [x, y]), as_list(hue), names)
    figure, [(axes, points)] = panels(points, x, y, names, is_log_y=is_log_y)
    for label, runs in points.groupby(LABEL, sort=False):
        axes.scatter(runs[x], runs[y], s=16, color=colours[label], alpha=0.35, linewidths=0)
        front = runs.iloc[pareto_front(*(runs[metric] for metric in select))].sort_values(x)
        axes.plot(front[x], front[y], color=colours[label], **LINE)
    add_legend(axes, colours)
    experiment.save_figure(figure, f"pareto_front_{in_file_name(y)}_{in_file_name(x)}")
