"""Figures of whatever one wants to see: any metric against any, or several over one axis."""

from collections.abc import Mapping, Sequence

import pandas as pd

from utils.aggregation import tables
from utils.aggregation.experiment import Experiment
from utils.aggregation.outputs import in_file_name
from utils.aggregation.selection import (
    ALONG_CURVE,
    as_list,
    check_alike,
    curve_keys,
    with_settings,
)
from utils.configs.composing import ConfigError
from utils.plots.scatter import Kind, scatter_plot
from utils.plots.superpose import Scale, superpose_plot

SCATTER, SUPERPOSE = "aggregate.plot_scatter_lines", "aggregate.plot_superpose"
KINDS = ("points", "lines", "regression")
SCALES = ("twin", "normalised", "same")


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
    where: Mapping[str, object] | None = None,
) -> None:
    """Draw a metric against another metric or a numeric parameter, to `scatter_lines_<y>_<x>`.

    With lines, points are means over seeds, with standard errors; otherwise each run is a point.

    Parameters
    ----------
    experiment : whose runs are drawn.
    x, y : metrics, parameters of the tables or settings, e.g. featurizer.loss.beta.
    kind : points, lines or regression (a linear fit with its 95 % interval).
    hue : parameter or setting, or several, that give colours.
    style : ... markers and dashes.
    col, row : ... with a column or row of panels for each value.
    is_log_x, is_log_y : logarithmic axes, of base 2.
    where : parameter -> value or values: which runs are drawn; None: all.
    """
    _check_choice("kind", kind, KINDS, SCATTER)
    given = [name for name in (style, col, row) if name is not None]
    frame = with_settings(experiment.merged(where, SCATTER), [*as_list(hue), *given, x, y])
    _check_columns(frame, [x, y, *as_list(hue), *given], SCATTER)
    apart: list[str] = []
    if kind == "lines":
        frame = experiment.summary(frame)
        apart = [key for key in curve_keys(frame) if key not in (x, y, style)]
    frame = frame.assign(**{name: _numbers(frame, name) for name in (x, y)})
    try:
        figure = scatter_plot(
            frame,
            x,
            y,
            kind=kind,
            hue=as_list(hue),
            style_by=style,
            col=col,
            row=row,
            line=apart,
            is_log_x=is_log_x,
            is_log_y=is_log_y,
            names=experiment.names,
        )
    except ValueError as error:
        raise ConfigError(f"{SCATTER}: {error}") from error
    experiment.save_figure(figure, f"scatter_lines_{in_file_name(y)}_{in_file_name(x)}")


def plot_superpose(
    experiment: Experiment,
    x: str,
    y: Sequence[str],
    scale: Scale = "twin",
    by: str | None = "dist",
    is_log_x: bool = False,
    where: Mapping[str, object] | None = None,
) -> None:
    """Draw several metrics of one curve over the same axis, to `superpose[_<value>]`.

    A curve joins runs that differ in nothing but the seed and what moves them along it
    (`rows.ALONG_CURVE`): if there are more, that is an error that names what tells them apart.

    Parameters
    ----------
    experiment : whose runs are drawn.
    x : metric of the horizontal axis.
    y : metrics of the curves.
    scale : twin (two axes, for two metrics), normalised (each from 0 to 1) or same.
    by : parameter or setting with a figure for each of its values; None: a single figure.
    is_log_x : logarithmic horizontal axis, of base 2.
    where : parameter -> value or values: which runs are drawn; None: all.
    """
    _check_choice("scale", scale, SCALES, SUPERPOSE)
    by_names = [] if by is None else [by]
    frame = with_settings(experiment.merged(where, SUPERPOSE), by_names)
    _check_columns(frame, [x, *y, *by_names], SUPERPOSE)
    groups = [("", frame)] if by is None else frame.groupby(by, sort=False)
    for level, runs in groups:
        title = f"the runs of {by} = {level}" if by else "the runs"
        check_alike(runs, SUPERPOSE, title, but=ALONG_CURVE)
        try:
            figure = superpose_plot(
                experiment.summary(runs),
                x,
                list(y),
                scale=scale,
                is_log_x=is_log_x,
                names=experiment.names,
            )
        except ValueError as error:
            raise ConfigError(f"{SUPERPOSE}: {error}") from error
        experiment.save_figure(figure, f"superpose_{level}" if by else "superpose")


def _numbers(frame: pd.DataFrame, name: str) -> pd.Series:
    """A column as numbers: of a metric, its means if the table has means; or of a parameter."""
    return pd.to_numeric(frame[f"{name}_mean" if f"{name}_mean" in frame else name], "coerce")


def _check_columns(frame: pd.DataFrame, names: Sequence[str], option: str) -> None:
    if missing := [name for name in names if name not in frame]:
        there_are = [*tables.parameters(frame), *tables.metrics_of(frame)]
        raise ConfigError(
            f"{option}: the runs have no {', '.join(missing)}: there are {there_are}, and settings "
            "such as optimizer_feat.kwargs.lr"
        )


def _check_choice(name: str, value: str, choices: Sequence[str], option: str) -> None:
    if value not in choices:
        raise ConfigError(f"{option}.{name}: expected one of {list(choices)}, found {value!r}")
