"""Tables of all metrics, and the figures of all runs side by side."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from pandas import DataFrame

from utils.aggregation import tables
from utils.aggregation.experiment import Experiment
from utils.configs.composing import ConfigError
from utils.runs.identity import STAGES
from utils.runs.saved_runs import read_config

OPTION = "aggregate.summarize_metrics"


def summarize_metrics(
    experiment: Experiment,
    columns: dict[str, str],
    table: str = "merged",
    keys: list[str] | None = None,
    where: Mapping[str, object] | None = None,
) -> None:
    """Average all metrics over seeds into `summarized_metrics_<table>.csv`, for each stage and for
    all (merged); print a table of the chosen ones and save it to `summary`.

    Parameters
    ----------
    experiment : whose runs are averaged.
    columns : of the printed table: title -> metric.
    table : which summary is printed.
    keys : parameters and settings that the printed table shows; None: all that vary.
    where : parameter -> value or values: which runs are averaged; None: all.
    """
    if table not in tables.TABLES:
        raise ConfigError(f"{OPTION}.table: there is no '{table}'; there are {[*tables.TABLES]}")
    runs = experiment.stages(where, OPTION)
    if keys:
        runs = {name: tables.with_settings(frame, name, keys) for name, frame in runs.items()}
        _check_keys(runs, keys)
    summaries = tables.summaries(runs, experiment.seeds)
    for name, summary in summaries.items():
        if len(summary):
            experiment.save_numbers(summary, f"summarized_metrics_{name}")
    summary = summaries[table]
    try:
        shown = _of_stages_that_ran(summary, columns)
        chosen = tables.select(summary, shown, keys)
    except KeyError as error:
        raise ConfigError(f"{OPTION}.columns: {error.args[0]}") from error
    parameters = [key for key in chosen if key in summary]
    statistics = [f"{metric}_{part}" for metric in shown.values() for part in ("mean", "sem")]
    numbers = summary[[*parameters, *tables.COUNTS, *statistics]]
    experiment.save_table(numbers, "summary", caption="bits per example", shown=chosen)


def _check_keys(runs: Mapping[str, DataFrame], keys: Sequence[str]) -> None:
    """Raise `ConfigError` for what is neither a parameter of any stage nor a setting."""
    folders = [folder for frame in runs.values() if len(frame) for folder in frame[tables.FOLDER]]
    config = read_config(Path(folders[0]))
    known = [*config.path_parts(STAGES[-1])]
    known += [key for frame in runs.values() for key in tables.parameters(frame)]
    if unknown := [key for key in keys if key not in known and key not in config.flat]:
        raise ConfigError(
            f"{OPTION}.keys: there is no {unknown}; there are {[*dict.fromkeys(known)]} and all "
            "settings, such as trainer.max_epochs"
        )


def _of_stages_that_ran(summary: DataFrame, columns: dict[str, str]) -> dict[str, str]:
    """The columns without those of stages that have no runs (`is_only_feat`)."""
    known = {c.removesuffix("_mean") for c in tables.metrics_of(summary) if c.endswith("_mean")}
    stages = {metric.split("/")[1] for metric in known}
    ran = {
        title: metric
        for title, metric in columns.items()
        if metric in known or metric.count("/") != 2 or metric.split("/")[1] in stages
    }
    return ran or {metric: metric for metric in sorted(known) if metric.startswith("test/")}


def gather_figures(experiment: Experiment, where: Mapping[str, object] | None = None) -> None:
    """Copy the figures of the trained compressors side by side into `<experiment>/figures/`.

    Their names say in what the runs differ; of several seeds, the first is taken. Figures that were
    there before are removed.

    Parameters
    ----------
    experiment : whose figures are copied.
    where : parameter -> value or values: of which runs; None: all.
    """
    frame = experiment.finished("featurizer", where, "aggregate.gather_figures")
    frame = frame.drop_duplicates(tables.GROUP)
    figures = {path: sorted(Path(path).glob("*.png")) for path in frame[tables.FOLDER]}
    frame = frame[[bool(figures[path]) for path in frame[tables.FOLDER]]]
    keys = tables.varying(frame)
    target = experiment.output / "figures"
    for outdated in target.glob("*.png"):  # of runs that are gone, or had other labels
        outdated.unlink()
    for row in frame.to_dict("records"):
        label = "".join(f"_{row[key]}" for key in keys)
        target.mkdir(parents=True, exist_ok=True)
        for figure in figures[row[tables.FOLDER]]:
            shutil.copyfile(
                figure, target / f"{figure.stem}{label}{figure.suffix}".replace(" ", "_")
            )
    if len(frame):
        print(f"Figures: {target}/")
