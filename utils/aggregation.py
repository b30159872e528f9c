"""The modes of `aggregate.py`: each draws one kind of table or figure from an experiment's runs."""

import shutil
from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig

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
    text = tables.to_markdown(tables.select(summaries[table], dict(columns), keys))
    write_text(folder / "summary.md", text)
    runs = ", ".join(f"{n} {state}" for state, n in sorted(states.items()))
    print(f"\n{folder.name} (bits per example; runs of all stages: {runs})\n\n{text}")
    print(f"Tables: {folder}/summary.md, summarized_metrics_*.csv")


def plot_all_RD_curves(
    folder: Path, x: str, y: list[str], hue: str = "dist", is_log_x: bool = False
) -> None:
    """Draw metrics against the rate, a curve for each value of `hue`, error bars over seeds.

    Parameters
    ----------
    x : metric of the horizontal axis.
    y : metrics of the vertical axis; a figure for each.
    hue : parameter that tells curves apart.
    """
    from utils.plots.curves import curve_plot

    summaries, _ = tables.summarise_metrics(folder)
    for metric in y:
        figure = curve_plot(summaries["merged"], x=x, y=metric, hue=hue, logx=is_log_x)
        path = folder / f"all_RD_curves_{metric.replace('/', '_')}.png"
        figure.savefig(path)
        print(f"Figure: {path}")


def gather_figures(folder: Path) -> None:
    """Copy the figures of the trained compressors side by side into `<experiment>/figures/`.

    Their names say in what the runs differ; of several seeds, the first is taken.
    """
    runs, _ = tables.collect(folder)
    frame = runs["featurizer"].drop_duplicates(tables.GROUP)
    figures = {path: sorted(Path(path).glob("*.png")) for path in frame[tables.FOLDER]}
    frame = frame[[bool(figures[path]) for path in frame[tables.FOLDER]]]
    keys = tables.varying(frame)
    target = folder / "figures"
    for row in frame.to_dict("records"):
        label = "".join(f"_{row[key]}" for key in keys)
        target.mkdir(exist_ok=True)
        for figure in figures[row[tables.FOLDER]]:
            shutil.copyfile(figure, target / f"{figure.stem}{label}{figure.suffix}")
    if len(frame):
        print(f"Figures: {target}/")


MODES: dict[str, Callable[..., None]] = {
    "summarize_metrics": summarize_metrics,
    "plot_all_RD_curves": plot_all_RD_curves,
    "gather_figures": gather_figures,
}


def aggregate(cfg: DictConfig, folder: Path) -> None:
    """Run the modes of `cfg.modes` with their options."""
    for mode in cfg.modes:
        if mode not in MODES:
            raise ConfigError(f"aggregate.modes: there is no '{mode}'; there are {list(MODES)}")
        MODES[mode](folder, **cfg[mode])
