"""Loggers. None asks or blocks, and none is needed: results and figures are always on disk."""

import sys
from collections.abc import Mapping
from pathlib import Path

from hydra.utils import instantiate
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from pytorch_lightning.loggers import Logger, WandbLogger

from utils.runs.run import Run
from utils.training import wandb_runs
from utils.training.csv_logs import TidyCSVLogger


def build_logger(run: Run) -> Logger | None:
    """The logger of a run, which gets the config and the run's folder."""
    make = instantiate(run.cfg.logger.kwargs)
    if make is None:
        return None
    logger = make(run)
    logger.log_hyperparams(OmegaConf.to_container(run.cfg, resolve=True))
    return logger


def csv_logger(run: Run) -> TidyCSVLogger:
    """One CSV file per run, in the experiment's folder of the logs."""
    path = Path(run.cfg.paths.logs) / run.cfg.experiment_name / f"{run.stage}_{run.id}.csv"
    print(f"[{run.stage}] metrics: {path}")
    return TidyCSVLogger(path)


def wandb_logger(run: Run, project: str, entity: str | None = None) -> WandbLogger:
    """Weights & Biases; offline, with a line that says so, where it cannot be reached."""
    options = wandb_runs.init_options(
        run.cfg, project=project, entity=entity, kind=run.stage, number=run.id
    )
    return WandbLogger(save_dir=options.pop("dir"), **options)


def log_results(run: Run, metrics: Mapping[str, float]) -> None:
    """Put the final metrics of a stage into the summary of its W&B run, if W&B is its logger.

    A stage that trained nothing gets its W&B run here.
    """
    if run.cfg.logger.name != "wandb":
        return
    if (current := _current_wandb_run()) is None:
        current = build_logger(run).experiment
    current.summary.update(dict(metrics))


def close() -> None:
    """End the W&B run that is under way, if any: the loggers of later runs would go on in it."""
    if (current := _current_wandb_run()) is None:
        return
    try:
        current.finish()
    except ConnectionError as error:
        # A scheduler's signals reach W&B's own process, too, which may end before this one: that
        # must not hide why the job ends.
        print(f"W&B ended first ({error}): what it had stored is kept", file=sys.stderr)


def log_figure(logger: Logger | None, name: str, figure: Figure) -> None:
    """Hand a figure to the logger if it takes pictures."""
    if isinstance(logger, WandbLogger):
        logger.log_image(name, [figure])


def _current_wandb_run() -> object | None:
    wandb = sys.modules.get("wandb")  # which takes long to import for those who do not use it
    return None if wandb is None else wandb.run
