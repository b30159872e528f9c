"""Hyper-parameter searches: studies of Optuna that survive what happens to their processes."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from utils.composing import ConfigError
from utils.identity import experiment_folder
from utils.search import database
from utils.search.space import Space

DIRECTIONS = ("minimize", "maximize")


def check(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Raise `ConfigError` if a search cannot be, or would not fit into the study that there is."""
    space = Space.of(overrides)
    if not space.distributions:
        raise ConfigError(
            "hypopt: there is nothing to search: give ranges, such as "
            "'encoder.z_dim=choice(16, 32)' or 'featurizer.loss.beta=tag(log, interval(1e-3, 1))'"
        )
    objectives, directions = _objectives(cfg), list(cfg.hypopt.direction)
    if len(objectives) != len(directions) or not set(directions) <= set(DIRECTIONS):
        raise ConfigError(
            f"hypopt.direction has {len(directions)} entries for {len(objectives)} objectives "
            f"(hypopt.direction={directions}, monitor_return={objectives}): give one, minimize or "
            "maximize, for each"
        )
    if chosen_on_test := [name for name in objectives if name.startswith("test/")]:
        raise ConfigError(
            f"monitor_return: {chosen_on_test} would choose on test data: take val/... instead"
        )
    for key in ("n_trials", "n_parallel"):
        if not isinstance(cfg.hypopt[key], int) or cfg.hypopt[key] < 1:
            raise ConfigError(f"hypopt.{key} must be 1 or more, not {cfg.hypopt[key]}")
    file = Path(cfg.paths.results) / experiment_folder(cfg) / database.FILE
    name = str(cfg.hypopt.study_name)  # which may look like a number
    if name in database.names(file):
        database.check_same(database.load(file, name), objectives, directions, space)


def _objectives(cfg: DictConfig) -> list[str]:
    objectives = OmegaConf.to_container(OmegaConf.create({"all": cfg.monitor_return}))["all"]
    return objectives if isinstance(objectives, list) else [objectives]
