"""Figures of rate-distortion curves and Pareto fronts, from the table of all stages."""

from collections.abc import Mapping, Sequence

from utils.aggregation.experiment import Experiment
from utils.aggregation.outputs import in_file_name
from utils.aggregation.selection import as_list, check_metrics, curve_keys, with_settings
from utils.configs.composing import ConfigError
from utils.plots.curves import curve_plot, pareto_plot
from utils.plots.invariance import invariance_plot


def plot_all_RD_curves(
    experiment: Experiment,
    x: str | Sequence[str],
    y: str,
    hue: str | Sequence[str] = "dist",
    col: str | None = None,
    is_log_x: bool = False,
    is_log_y: bool = False,
    where: Mapping[str, object] | None = None,
) -> None:
    """Draw the rate against the distortion to `all_RD_curves_<x>`; error bars over seeds.

    A curve joins the runs that differ in nothing but what moves them along it
    (`rows.ALONG_CURVE`); a run that lacks a metric (e.g. a classical codec, which has no
    distortion) is left out of that metric's figure.

    Parameters
    ----------
    experiment : whose runs are drawn.
    x : metrics of the distortion, or other costs; a figure for each.
    y : metric of the rate, e.g. test/feat/rate, or test/comm/n_bits for coded bits.
    hue : parameter of the tables or setting, or several, that give a curve its colour.
    col : parameter or setting with a panel for each of its values.
    is_log_x, is_log_y : logarithmic axes, of base 2.
    where : parameter -> value or values: which runs are drawn; None: all.
    """
    option = "aggregate.plot_all_RD_curves"
    shown = [*as_list(hue), *([] if col is None else [col])]
    summary = experiment.summary(with_settings(experiment.merged(where, option), shown))
    for metric in as_list(x):
        try:
            figure = curve_plot(
                summary,
                metric,
                y,
                as_list(hue),
                col=col,
                curve=curve_keys(summary),
                is_log_x=is_log_x,
                is_log_y=is_log_y,
                names=experiment.names,
            )
        except ValueError as error:
            raise ConfigError(f"{option}: {error}") from error
        experiment.save_figure(figure, f"all_RD_curves_{in_file_name(metric)}")


def plot_pareto_front(
    experiment: Experiment,
    x: str,
    y: str,
    hue: str | Sequence[str] = "dist",
    select: Sequence[str] | None = None,
    is_log_y: bool = False,
    where: Mapping[str, object] | None = None,
) -> None:
    """Draw all runs, and the fronts of those that no other one beats on validation data, to
    `pareto_front_<y>_<x>`.

    Every seed is a run of its own. All metrics are costs (`err` rather than `acc`). Runs are drawn
    at x and y, those of a front too: as their members are not chosen by these, fronts may rise.

    Parameters
    ----------
    x, y : metrics that are drawn.
    hue : parameter of the tables or setting, or several; a colour and a front for each value.
    select : the two metrics that choose the fronts; None: x and y on validation data.
    is_log_y : logarithmic vertical axis, of base 2.
    where : as above.
    """
    option = "aggregate.plot_pareto_front"
    chosen_by = [on_validation(x), on_validation(y)] if select is None else as_list(select)
    if len(chosen_by) != 2:
        raise ConfigError(f"{option}.select: expected two metrics or null, found {chosen_by}")
    frame = with_settings(experiment.merged(where, option), as_list(hue))
    try:
        figure = pareto_plot(
            frame,
            x,
            y,
            as_list(hue),
            select=tuple(chosen_by),
            is_log_y=is_log_y,
            names=experiment.names,
        )
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from error
    experiment.save_figure(figure, f"pareto_front_{in_file_name(y)}_{in_file_name(x)}")


def plot_invariance_RD_curve(
    experiment: Experiment,
    x: str,
    desirable: str,
    hue: str | Sequence[str] = "dist",
    reference: Mapping[str, object] | None = None,
    tolerance: float = 0.01,
    is_log_x: bool = False,
    where: Mapping[str, object] | None = None,
) -> None:
    """Draw what tasks lose against the rate, to `invariance_RD_curve`.

    The invariance distortion H[M(X)|Z] is what a representation does not say about the maximal
    invariant, which all invariant tasks depend on (section 3 of the paper). Its estimate is the
    loss of a predictor of such a task: the `desirable` metric, by which compressors that rebuild
    different things can be compared. A dashed line marks near-lossless prediction, and each curve
    the fewest bits that it needs for that: how far these lie apart is what is spent on what no
    task needs.

    Near lossless is at most `tolerance` above the loss without compression (the mean of the
    `reference`); without such runs, above the lowest mean of all curves.

    Parameters
    ----------
    experiment : whose runs are drawn.
    x : metric of the rate.
    desirable : metric of the downstream loss.
    hue : parameter of the tables or setting, or several, that give a curve its colour.
    reference : parameter -> value: the runs without compression.
    tolerance : in the unit of the loss.
    is_log_x : logarithmic horizontal axis, of base 2.
    where : parameter -> value or values: which runs are drawn; None: all.
    """
    option = "aggregate.plot_invariance_RD_curve"
    frame = with_settings(experiment.merged(where, option), as_list(hue))
    check_metrics(frame, [x, desirable], option)
    summary = experiment.summary(frame)
    if reference is None:
        level, name = summary[f"{desirable}_mean"].min(), "lowest"
    else:
        runs = experiment.merged(reference, f"{option}.reference")
        level, name = runs[desirable].mean(), "uncompressed"
    try:
        figure = invariance_plot(
            summary,
            x,
            desirable,
            as_list(hue),
            level=level + tolerance,
            level_name=f"{name} + {tolerance:g}",
            curve=curve_keys(summary),
            is_log_x=is_log_x,
            names=experiment.names,
        )
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from error
    experiment.save_figure(figure, "invariance_RD_curve")


def on_validation(metric: str) -> str:
    return f"val/{metric.removeprefix('test/')}" if metric.startswith("test/") else metric
