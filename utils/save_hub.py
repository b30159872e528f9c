"""Save an experiment's trained bottlenecks in the format of the released weights.

    python -m utils.save_hub experiment=clip_hub ['load.where={rate: H_factorized}']

Each finished run that `load.where` selects is saved as
`pretrained/exp_<experiment>/hub/beta<beta>/factorized_rate.pt`, which the entry points of
hubconf.py accept as `pretrained_path`. The folder name also includes the other settings in which
the runs differ, and any seed but the default. If a checkpoint is missing or damaged, or the hub
cannot load its bottleneck, the command reports the error and exits with status 1.
"""

import re
import sys
from pathlib import Path

from omegaconf import DictConfig
from pandas import DataFrame, Series

from lossyless.printing import forgive_output
from lossyless.rates import HFactorized, Rate
from lossyless.weights import WeightsError
from utils.aggregation import tables
from utils.aggregation.selection import restrict
from utils.configs.checks import ConfigError
from utils.load_pretrained import call
from utils.runs.identity import experiment_folder
from utils.runs.run import write_checkpoint
from utils.runs.saved_runs import config_here
from utils.training import building

FILE_NAME = "factorized_rate.pt"  # as in the release
DEFAULT_SEED = "123"


def main(overrides: list[str]) -> None:
    call(save_all, overrides, help_text=__doc__, done="saved")


def save_all(cfg: DictConfig) -> list[str]:
    """Save the bottlenecks of the selected runs; return an error message for each failure."""
    name = experiment_folder(cfg)
    runs, _ = tables.collect(Path(cfg.paths.results) / name)
    chosen = restrict(tables.finished(runs["featurizer"]), cfg.load.where or {}, "load.where")
    problems = []
    for folder, run in name_runs(chosen).items():
        path = Path(cfg.paths.pretrained) / name / "hub" / folder / FILE_NAME
        try:
            save_bottleneck(load_rate(run, dict(cfg.paths)), path)
            print(f"Bottleneck: {path}")
        except ConfigError as error:
            problems.append(str(error))
    return problems


def name_runs(runs: DataFrame) -> dict[str, Series]:
    """The runs that have a bottleneck (rows of `runs`), keyed by the folder to save them in.

    As in the release, folder names start with the beta, such as "beta5e-02". The other parameters
    in which the runs differ follow, and any seed but the default.

    Raises `ConfigError` if no run has a bottleneck, or if two runs would get the same folder.
    """
    trained = runs[~runs["beta"].isin(["none", "None"])]
    if trained.empty:
        raise ConfigError("none of the finished runs has a bottleneck")
    keys = [key for key in tables.varying(trained) if key != "beta"]
    named: dict[str, Series] = {}
    for _, run in trained.iterrows():
        folder = _folder(run, keys)
        if folder in named:
            raise ConfigError(
                f"two runs would both be saved as {folder}: {named[folder][tables.FOLDER]} and "
                f"{run[tables.FOLDER]}. Remove one of them"
            )
        named[folder] = run
    return named


def _folder(run: Series, keys: list[str]) -> str:
    parts = [f"beta{run['beta'].replace('.0e', 'e')}", *(f"{key}_{run[key]}" for key in keys)]
    if run[tables.SEED] != DEFAULT_SEED:
        parts.append(f"{tables.SEED}_{run[tables.SEED]}")
    return re.sub(r"[^\w.+-]", "-", "_".join(parts))


def load_rate(run: Series, paths: dict[str, str]) -> Rate:
    """The bottleneck of a finished run (a row of a table from `utils.aggregation.tables`).

    Raises `ConfigError` if its checkpoint is missing or damaged.
    """
    config = config_here(Path(run[tables.FOLDER]), paths, "cpu")
    try:
        return building.load_compressor(config).rate
    except (FileNotFoundError, WeightsError) as error:
        raise ConfigError(str(error)) from error


def save_bottleneck(rate: Rate, path: Path) -> None:
    """Write the weights and coding tables of a bottleneck, atomically.

    Raises `ConfigError` if the bottleneck is not factorized.
    """
    if not isinstance(rate, HFactorized):
        raise ConfigError(
            f"{path}: the hub loads factorized bottlenecks, not {type(rate).__name__}: train with "
            "rate=H_factorized or rate=H_factorized_klt"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(rate.cpu().state_dict(), path)


if __name__ == "__main__":
    forgive_output()
    main(sys.argv[1:])
