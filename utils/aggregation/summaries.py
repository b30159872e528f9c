"""Tables of all metrics, and the figures of all runs side by side."""

import shutil
from pathlib import Path

from pandas import DataFrame

from utils import tables
from utils.config import ConfigError
from utils.runs import write_text


def summarize_metrics(
    folder: Path,
    columns: dict[str, str],
    table: str = "merged",
    keys: list[str] | None = None,
) -> None:
    """Average all metrics over seeds into CSVs; print and save a table of the chosen ones.

    Parameters
    ----------
    folder : of the experiment.
    columns : of the printed table: title -> metric.
    table : which summary is printed.
    keys : parameters that the printed table shows; None: all that vary.
    """
    summaries, states = tables.summarise_metrics(folder)
    if table not in summaries:
        raise ConfigError(
            f"aggregate.summarize_metrics.table: there is no '{table}'; there are {[*summaries]}"
        )
    try:
        shown = _of_stages_that_ran(summaries[table], columns)
        chosen = tables.select(summaries[table], shown, keys)
    except KeyError as error:
        raise ConfigError(f"aggregate.summarize_metrics.columns: {error.args[0]}") from error
    text = tables.to_markdown(chosen)
    write_text(folder / "summary.md", text)
    runs = ", ".join(f"{n} {state}" for state, n in sorted(states.items()))
    print(f"\n{folder.name} (bits per example; runs of all stages: {runs})\n\n{text}")
    print(f"Tables: {folder}/summary.md, summarized_metrics_*.csv")


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


def gather_figures(folder: Path) -> None:
    """Copy the figures of the trained compressors side by side into `<experiment>/figures/`.

    Their names say in what the runs differ; of several seeds, the first is taken. Figures that were
    there before are removed.
    """
    runs, _ = tables.collect(folder)
    frame = runs["featurizer"].drop_duplicates(tables.GROUP)
    figures = {path: sorted(Path(path).glob("*.png")) for path in frame[tables.FOLDER]}
    frame = frame[[bool(figures[path]) for path in frame[tables.FOLDER]]]
    keys = tables.varying(frame)
    target = folder / "figures"
    for outdated in target.glob("*.png"):  # of runs that are gone, or had other labels
        outdated.unlink()
    for row in frame.to_dict("records"):
        label = "".join(f"_{row[key]}" for key in keys)
        target.mkdir(exist_ok=True)
        for figure in figures[row[tables.FOLDER]]:
            shutil.copyfile(
                figure, target / f"{figure.stem}{label}{figure.suffix}".replace(" ", "_")
            )
    if len(frame):
        print(f"Figures: {target}/")
