"""Rate-distortion curves and Pareto fronts: of the table of all stages, to figures and CSVs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from pandas import DataFrame

from utils import tables
from utils.aggregation.rows import as_list, curve_keys, restrict, with_settings
from utils.config import ConfigError
from utils.frontier import area_under_front, pareto_front, rate_at_lowest_distortion
from utils.plots.curves import curve_plot, pareto_plot


def plot_all_RD_curves(
    folder: Path,
    x: str,
    y: str | Sequence[str],
    hue: str | Sequence[str] = "dist",
    col: str | None = None,
    is_log_x: bool = False,
    where: Mapping[str, object] | None = None,
) -> None:
    """Draw metrics against the rate to `all_RD_curves_<y>.png`; error bars over seeds.

    A curve joins the runs that differ in nothing but what moves them along it
    (`rows.ALONG_CURVE`); a run that lacks a metric (e.g. a classical codec, which has no
    distortion) is left out of that metric's figure.

    Parameters
    ----------
    folder : of the experiment.
    x : metric of the horizontal axis, e.g. test/feat/rate, or test/comm/n_bits for coded bits.
    y : metrics of the vertical axis; a figure for each.
    hue : parameter of the tables or setting, or several, that give a curve its colour.
    col : parameter or setting with a panel for each of its values.
    is_log_x : logarithmic horizontal axis, of base 2.
    where : parameter -> value or values: which runs are drawn; None: all.
    """
    option = "aggregate.plot_all_RD_curves"
    shown = [*as_list(hue), *([] if col is None else [col])]
    summary = tables.summarise(with_settings(_runs(folder, where, option), shown))
    for metric in as_list(y):
        try:
            figure = curve_plot(
                summary,
                x,
                metric,
                as_list(hue),
                col=col,
                curve=curve_keys(summary),
                is_log_x=is_log_x,
            )
        except ValueError as error:
            raise ConfigError(f"{option}: {error}") from error
        _save(figure, folder / f"all_RD_curves_{_in_file_name(metric)}.png")


def plot_pareto_front(
    folder: Path,
    x: str,
    y: str,
    hue: str | Sequence[str] = "dist",
    select: Sequence[str] | None = None,
    is_log_y: bool = False,
    where: Mapping[str, object] | None = None,
) -> None:
    """Draw all runs, and the fronts of those that no other one beats on validation data, to
    `pareto_front_<y>_<x>.png`.

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
    frame = with_settings(_runs(folder, where, option), as_list(hue))
    try:
        figure = pareto_plot(frame, x, y, as_list(hue), select=tuple(chosen_by), is_log_y=is_log_y)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from error
    _save(figure, folder / f"pareto_front_{_in_file_name(y)}_{_in_file_name(x)}.png")


def summarize_RD_curves(
    folder: Path, x: str, y: str, where: Mapping[str, object] | None = None
) -> None:
    """Write two numbers for each rate-distortion curve to `summarized_RD_curves_merged.csv`.

    A curve is what the runs of one seed give that differ in `rows.ALONG_CURVE` alone (beta): their
    Pareto front D(r), the lowest distortion at a rate of at most r, linear between runs.

    - `area`: the integral of D(r) from `start_rate` to `end_rate`, which are the same for all
      curves of the table, so that they can be compared: where the last curve starts, and where the
      last one ends. A curve that ends earlier goes on at its lowest distortion.
    - `rate_at_min`: the lowest rate at which D(r) is at most 1 % above the curve's own minimum
      `min`.

    Columns: the parameters in which curves differ; `n_seeds`; the interval; and as
    `<y>/<number>_mean` and `_sem`, over seeds, these numbers and `n_runs`, the runs of a curve.

    Parameters
    ----------
    x : metric of the rate.
    y : metric of the distortion, or another cost.
    where : as above.
    """
    option = "aggregate.summarize_RD_curves"
    frame = _runs(folder, where, option)
    if missing := [metric for metric in (x, y) if metric not in frame]:
        raise ConfigError(
            f"{option}: unknown metrics {missing}; there are {tables.metrics_of(frame)}"
        )
    frame = frame.dropna(subset=[x, y])
    if frame.empty:
        raise ConfigError(f"{option}: no run has both {x} and {y}")
    summary = _summary_of_curves(frame, x, y)
    path = folder / "summarized_RD_curves_merged.csv"
    summary.to_csv(path, index=False)
    titles = {number: f"{y}/{number}" for number in ("area", "rate_at_min", "min")}
    keys = [key for key in curve_keys(frame) if key in summary]
    print(f"\n{y} against {x}\n\n{tables.to_markdown(tables.select(summary, titles, keys))}")
    print(f"Table: {path}")


def _runs(folder: Path, where: Mapping[str, object] | None, option: str) -> DataFrame:
    """The finished runs that are meant, with the metrics of all stages."""
    return restrict(tables.merge(tables.collect(folder)[0]), where or {}, f"{option}.where")


def _summary_of_curves(frame: DataFrame, x: str, y: str) -> DataFrame:
    keys = [*curve_keys(frame), tables.SEED]
    curves = []
    for levels, runs in frame.groupby(keys, sort=False, dropna=False):
        rates, distortions = runs[x].to_numpy(), runs[y].to_numpy()
        front = pareto_front(rates, distortions)
        curves.append((levels, len(runs), rates[front], distortions[front]))
    start = max(rates[0] for *_, rates, _ in curves)
    end = max(rates[-1] for *_, rates, _ in curves)
    rows = [
        {tables.GROUP: ""}
        | dict(zip(keys, levels, strict=True))
        | {
            f"{y}/area": area_under_front(rates, distortions, start, end),
            f"{y}/rate_at_min": rate_at_lowest_distortion(rates, distortions),
            f"{y}/min": distortions[-1],
            f"{y}/n_runs": n_runs,
        }
        for levels, n_runs, rates, distortions in curves
    ]
    summary = tables.summarise(DataFrame(rows)).drop(columns=tables.GROUP)
    position = summary.columns.get_loc("n_seeds") + 1
    summary.insert(position, "start_rate", start)
    summary.insert(position + 1, "end_rate", end)
    return summary


def on_validation(metric: str) -> str:
    return f"val/{metric.removeprefix('test/')}" if metric.startswith("test/") else metric


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path)
    print(f"Figure: {path}")


def _in_file_name(metric: str) -> str:
    return metric.replace("/", "_")
