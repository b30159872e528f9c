"""The modes of `aggregate.py`: each draws one kind of table or figure from an experiment's runs."""

from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig
from rich import box
from rich.console import Console
from rich.table import Table

from utils import tables
from utils.config import ConfigError
from utils.runs import write_text


def summarize_metrics(folder: Path, columns: dict[str, str], table: str = "merged") -> None:
    """Average all metrics over seeds into CSVs; print and save a table of the chosen ones.

    Parameters
    ----------
    folder : of the experiment.
    columns : of the printed table: title -> metric.
    table : which summary is printed.
    """
    summaries, states = tables.summarise_metrics(folder)
    chosen = tables.select(summaries[table], dict(columns))
    write_text(folder / "summary.md", tables.to_markdown(chosen))
    shown = Table(*map(str, chosen.columns), title=folder.name, box=box.SIMPLE_HEAD)
    for row in chosen.itertuples(index=False):
        shown.add_row(*map(str, row))
    console = Console()
    console.print(shown)
    runs = ", ".join(f"{n} {state}" for state, n in sorted(states.items()))
    console.print(
        f"Runs of all stages: {runs}. Tables: {folder}/summarized_metrics_*.csv, summary.md"
    )


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


MODES: dict[str, Callable[..., None]] = {
    "summarize_metrics": summarize_metrics,
    "plot_all_RD_curves": plot_all_RD_curves,
}


def aggregate(cfg: DictConfig, folder: Path) -> None:
    """Run the modes of `cfg.modes` with their options."""
    for mode in cfg.modes:
        if mode not in MODES:
            raise ConfigError(f"aggregate.modes: there is no '{mode}'; there are {list(MODES)}")
        MODES[mode](folder, **cfg[mode])
