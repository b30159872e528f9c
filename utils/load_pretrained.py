"""Draw figures of trained compressors and save them in the folders of their runs.

    python -m utils.load_pretrained experiment=banana_viz_VIC mode=quick
    python -m utils.load_pretrained experiment=augmnist_viz_VIC 'load.where={dist: VIC}' \
        'figures.names=[reconstruct_image_plot]' load.reconstruct_image_plot.seed=3

The default is to draw the figures that the experiment itself draws. conf/load_pretrained.yaml lists
every figure in `utils.plots.figures` with its options. If any figure cannot be drawn, the command
lists the problems at the end and exits with status 1. (To compare the reconstructions of several
runs, use the mode `compare_reconstructions` of `aggregate.py`.)

In Python, `load_runs` yields trained compressors and their data.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from pandas import DataFrame, Series

from lossyless.base import Compressor
from lossyless.printing import forgive_output
from utils.aggregation import tables
from utils.aggregation.selection import restrict
from utils.configs.checks import ConfigError, check_known
from utils.configs.composing import compose_config
from utils.data.module import DataModule
from utils.plots.figures import FIGURES
from utils.runs.identity import experiment_folder
from utils.runs.run import find_run
from utils.runs.saved_runs import config_here
from utils.training import building, figures

# missing files, figures that do not apply, damaged or outdated checkpoints
PROBLEMS = (OSError, ValueError, RuntimeError)


def main(overrides: list[str]) -> None:
    call(draw_figures, overrides, help_text=__doc__, done="drawn")


def call(
    command: Callable[[DictConfig], list[str]], overrides: list[str], *, help_text: str, done: str
) -> None:
    """Call a command that returns a list of problems; exit with status 1 if there are any."""
    if not overrides or overrides[0] in ("-h", "--help"):
        print(help_text)
        return
    try:
        problems = command(compose_config(overrides, "load_pretrained"))
    except (ConfigError, tables.NoRunsError, OSError) as error:
        sys.exit(f"Error: {error}")
    if problems:
        sys.exit("\n".join([f"Not {done}: {len(problems)}", *(f"  {p}" for p in problems)]))


def draw_figures(cfg: DictConfig) -> list[str]:
    """Draw `cfg.figures.names` for the runs that `cfg.load.where` selects.

    Returns one line per problem: a run that cannot be loaded, or a figure that cannot be drawn.
    Raises ConfigError if `figures.names` is empty or a name or parameter is unknown, and
    NoRunsError if no run is selected.
    """
    names = list(cfg.figures.names)
    if not names:
        raise ConfigError(f"figures.names is empty: choose from {', '.join(FIGURES)}")
    check_known("figures.names", names, FIGURES)
    folder = Path(cfg.paths.results) / experiment_folder(cfg)
    options = OmegaConf.to_container(cfg.load, resolve=True)
    where = options.pop("where") or {}
    return [
        f"{row[tables.FOLDER]}: {problem}"
        for _, row in _runs(folder, where).iterrows()
        for problem in _draw_run(row, names, options, cfg)
    ]


def load_runs(
    folder: str | Path,
    where: Mapping[str, object] | None = None,
    *,
    paths: Mapping[str, str] | None = None,
    accelerator: str = "auto",
) -> Iterator[tuple[Series, Compressor, DataModule]]:
    """Load the finished featurizers of an experiment, one at a time.

    Parameters
    ----------
    folder : `results/exp_<experiment>`.
    where : parameter -> value or values, such as {"dist": "VIC", "seed": 1}; None selects all runs.
    paths : current folders of checkpoints and data, as in conf/main.yaml. None: the paths that the
        runs saved, with relative ones resolved against the folder that contains the results.
    accelerator : device to compute on, as in `trainer.accelerator`.

    Yields
    ------
    row : parameters and metrics of the run, and the `folder` of its results.
    compressor : the trained compressor, in evaluation mode and without gradients.
    data : the data set that the compressor was trained on.

    Raises
    ------
    NoRunsError
        If no run is selected.
    FileNotFoundError
        If the checkpoint of a run is missing.
    """
    for _, row in tables.finished(_runs(Path(folder), where or {})).iterrows():
        here = paths or _paths_beside(Path(folder), Path(row[tables.FOLDER]))
        yield row, *_load(config_here(Path(row[tables.FOLDER]), here, accelerator))


def _runs(folder: Path, where: Mapping[str, object]) -> DataFrame:
    """The featurizer runs that `where` selects, finished or not."""
    return restrict(tables.collect(folder)[0]["featurizer"], where, "load.where")


def _draw_run(
    row: Series, names: list[str], options: Mapping[str, Mapping[str, object]], cfg: DictConfig
) -> Iterator[str]:
    """Draw figures of a run; yield one line per problem."""
    if row[tables.STATE] != "done":
        yield f"the run is {row[tables.STATE]}: run the experiment again to finish it"
        return
    saved = config_here(Path(row[tables.FOLDER]), dict(cfg.paths), cfg.trainer.accelerator)
    run = find_run(saved, "featurizer")
    try:
        compressor, data = _load(saved)
    except PROBLEMS as error:
        yield _one_line(error)
        return
    for name in names:
        try:
            (path,) = figures.draw_all([name], compressor, data, run, logger=None, options=options)
            print(f"Figure: {path}")
        except PROBLEMS as error:
            yield _one_line(error)


def _load(cfg: DictConfig) -> tuple[Compressor, DataModule]:
    compressor = building.load_compressor(cfg)
    auxiliary = compressor.distortion.needs if cfg.featurizer.is_learned else "none"
    return compressor, building.build_data(cfg, "data_feat", auxiliary)


def _paths_beside(folder: Path, run: Path) -> dict[str, str]:
    """The paths a run saved, with relative ones resolved against the folder that holds results/."""
    saved = OmegaConf.to_container(OmegaConf.load(run / "config.yaml").paths, resolve=True)
    results = Path(saved["results"])
    if results.is_absolute():
        return saved
    root = folder.resolve().parents[len(results.parts)]
    return {name: str(root / path) for name, path in saved.items()}


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: {text}"


if __name__ == "__main__":
    forgive_output()
    main(sys.argv[1:])
