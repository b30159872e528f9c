"""Modes for whole experiments: tables of all metrics, and figures of all runs."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from pandas import DataFrame, Series

from utils.aggregation import tables
from utils.aggregation.experiment import Experiment, in_file_name, number
from utils.configs.checks import ConfigError, check_known
from utils.runs.identity import STAGES
from utils.runs.saved_runs import read_config

# If the summary would show no predictor metric, the first of these that exists is added.
OF_TASK = {"accuracy": "test/pred/acc", "loss": "test/pred/loss"}


def summarize_metrics(
    experiment: Experiment,
    columns: Mapping[str, str],
    table: str = "merged",
    keys: Sequence[str] | None = None,
) -> None:
    """Write `summary`, and `summarized_metrics_<table>` for each stage and all stages merged."""
    option = experiment.option
    check_known(f"{option}.table", [table], tables.TABLES)
    runs = experiment.stages()
    if keys:
        runs = {stage: tables.with_settings(frame, keys, stage) for stage, frame in runs.items()}
        _check_keys(runs, keys, option)
    summaries = tables.summaries(runs, experiment.seeds)
    for name, summary in summaries.items():
        if len(summary):
            experiment.save_numbers(summary, f"summarized_metrics_{name}")
    summary = summaries[table]
    metrics = _shown_metrics(summary, columns, option)
    shown = select(summary, metrics, keys)
    parameters = [key for key in shown if key in summary]
    parts = ("mean", "sem", "count")
    statistics = [f"{metric}_{part}" for metric in metrics.values() for part in parts]
    statistics = [column for column in statistics if column in summary]
    numbers = summary[[*parameters, *tables.COUNTS, *statistics]]
    experiment.save_table(numbers, "summary", caption="bits per example", shown=shown)


def _check_keys(runs: Mapping[str, DataFrame], keys: Sequence[str], option: str) -> None:
    """Raise `ConfigError` for names that are neither parameters of a stage nor settings."""
    folders = [folder for frame in runs.values() if len(frame) for folder in frame[tables.FOLDER]]
    config = read_config(Path(folders[0]))
    known = [*config.path_parts(STAGES[-1])]
    known += [key for frame in runs.values() for key in tables.parameters(frame)]
    if unknown := [key for key in keys if key not in known and key not in config.flat]:
        raise ConfigError(
            f"{option}.keys: unknown keys {unknown}; choose from {[*dict.fromkeys(known)]} and "
            "all settings, such as trainer.max_epochs"
        )


def _shown_metrics(summary: DataFrame, columns: Mapping[str, str], option: str) -> dict[str, str]:
    """The columns of stages that have runs; if they lack a predictor metric, also one of `OF_TASK`.

    If no metric is selected, all test metrics are shown.
    """
    known = metrics_in(summary)
    stages = {metric.split("/")[1] for metric in known}
    ran = {
        title: metric
        for title, metric in columns.items()
        if metric in known or metric.count("/") != 2 or metric.split("/")[1] in stages
    }
    check_known(f"{option}.columns", ran.values(), known)
    if not any("/pred/" in metric for metric in ran.values()):
        ran |= next(({title: metric} for title, metric in OF_TASK.items() if metric in known), {})
    return ran or {metric: metric for metric in sorted(known) if metric.startswith("test/")}


def metrics_in(summary: DataFrame) -> list[str]:
    """The metrics in a summary."""
    return [column.removesuffix("_mean") for column in summary if column.endswith("_mean")]


def select(
    summary: DataFrame, columns: Mapping[str, str], keys: Sequence[str] | None = None
) -> DataFrame:
    """A readable table: parameters, some metrics as "mean ± sem", and the number of seeds.

    If some seeds lack a metric, its cell is "mean ± sem (2 of 3)".

    Parameters
    ----------
    summary : table returned by `tables.summarise`.
    columns : title -> metric.
    keys : parameters; None: all that vary. Keys without a column are skipped; if rows would be
        indistinguishable, all varying parameters are added.
    """
    everything = tables.varying(summary)
    keys = everything if keys is None else [key for key in keys if key in summary]
    if keys and summary.duplicated(keys).any():
        keys += [key for key in everything if key not in keys]
    table = summary[keys].copy()
    for title, metric in columns.items():
        table[title] = [_cell(row, metric) for _, row in summary.iterrows()]
    counts = summary[list(tables.COUNTS)].itertuples(index=False)
    table["seeds"] = [tables.format_counts(*row) for row in counts]
    return table


def _cell(row: Series, metric: str) -> str:
    cell, n = number(row[f"{metric}_mean"], row[f"{metric}_sem"]), row.get(f"{metric}_count", 0)
    return f"{cell} ({n} of {row['n_seeds']})" if 0 < n < row["n_seeds"] else cell


def gather_figures(experiment: Experiment) -> None:
    """Copy the figures of all trained compressors into `figures/`, replacing earlier copies.

    File names contain the parameters in which runs differ. If runs differ only in the seed, only
    the figures of the first run are copied.
    """
    frame = experiment.finished("featurizer")
    frame = frame.drop_duplicates(tables.GROUP)
    figures = {path: sorted(Path(path).glob("*.png")) for path in frame[tables.FOLDER]}
    frame = frame[[bool(figures[path]) for path in frame[tables.FOLDER]]]
    keys = tables.varying(frame)
    target = experiment.output / "figures"
    for outdated in target.glob("*.png"):
        outdated.unlink()
    for row in frame.to_dict("records"):
        label = in_file_name("".join(f"_{row[key]}" for key in keys))
        target.mkdir(parents=True, exist_ok=True)
        for figure in figures[row[tables.FOLDER]]:
            shutil.copyfile(figure, target / f"{in_file_name(figure.stem)}{label}.png")
    if len(frame):
        print(f"Figures: {target}/")
