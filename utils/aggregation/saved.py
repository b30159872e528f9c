"""Finished runs that are used again: their configs for where files are now, clear errors."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from pandas import Series

from utils.aggregation import tables
from utils.configs.composing import ConfigError
from utils.data.module import DataError
from utils.runs.saved_runs import upgrade


def config_here(run: Series, paths: Mapping[str, str], accelerator: str) -> DictConfig:
    """The config that a run saved, for files and devices as they are now.

    Parameters
    ----------
    run : row of a table of `utils.aggregation.tables`.
    paths : where results, checkpoints and data are now, as in conf/main.yaml.
    accelerator : where to compute, as `trainer.accelerator`.
    """
    config = OmegaConf.create(upgrade((Path(run[tables.FOLDER]) / "config.yaml").read_text()))
    config.paths = dict(paths)
    config.trainer.accelerator = accelerator
    return config


@contextlib.contextmanager
def named_errors(option: str) -> Iterator[None]:
    """Missing checkpoints and data are a ConfigError of this option, without a traceback.

    The messages of both say what to do.
    """
    try:
        yield
    except (FileNotFoundError, DataError) as error:
        raise ConfigError(f"{option}: {error}") from error
