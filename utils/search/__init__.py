"""Hyperparameter searches: Optuna studies that can resume after an interruption."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, ListConfig

from utils.configs.checks import ConfigError
from utils.runs.identity import experiment_folder
from utils.search import study
from utils.search.space import Space

DIRECTIONS = ("minimize", "maximize")


def check(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Raise `ConfigError` if a search is impossible or does not match its existing study."""
    space = Space.of(overrides)
    if not space.distributions:
        raise ConfigError(
            "hypopt: there is nothing to search; give ranges, such as "
            "'encoder.z_dim=choice(16, 32)' or 'featurizer.loss.beta=tag(log, interval(1e-3, 1))'"
        )
    objectives, directions = goals(cfg)
    if not objectives or not all(isinstance(name, str) for name in objectives):
        raise ConfigError(
            f"monitor_return={cfg.monitor_return}: expected the metrics that rank trials, such as "
            "val/pred/loss"
        )
    if len(objectives) != len(directions) or not set(directions) <= set(DIRECTIONS):
        raise ConfigError(
            f"hypopt.direction={directions} does not match monitor_return={objectives}: give "
            "minimize or maximize for each metric"
        )
    if on_test := [name for name in objectives if name.startswith("test/")]:
        raise ConfigError(
            f"monitor_return: {on_test} would select trials on test data; use val/... instead"
        )
    for key in ("n_trials", "n_parallel"):
        if not isinstance(cfg.hypopt[key], int) or cfg.hypopt[key] < 1:
            raise ConfigError(f"hypopt.{key} must be 1 or more, not {cfg.hypopt[key]}")
    file, name = study_file(cfg), str(cfg.hypopt.study_name)  # 123 is parsed as a number
    if name in study.names(file):
        study.fits(study.load(file, name), study.definition(objectives, directions, space), file)


def study_file(cfg: DictConfig) -> Path:
    """SQLite file that holds the studies of an experiment."""
    return Path(cfg.paths.results) / experiment_folder(cfg) / study.FILE


def goals(cfg: DictConfig) -> tuple[list[str], list[str]]:
    """Return the metrics that a search optimises, and their directions, as lists."""
    metrics, directions = (
        list(given) if isinstance(given, ListConfig) else [given]
        for given in (cfg.monitor_return, cfg.hypopt.direction)
    )
    return metrics, directions
