"""Loggers of trainings. None prompts or blocks; results and figures are on disk in any case."""

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
    """The logger of a run, with its config logged; None for `logger=none`."""
    make = instantiate(run.cfg.logger.kwargs)
    if make is None:
        return None
    logger = make(run)
    logger.log_hyperparams(OmegaConf.to_container(run.cfg, resolve=True))
    return logger


def csv_logger(run: Run) -> TidyCSVLogger:
    """One CSV file per run: `<logs>/<experiment>/<stage>_<run id>.csv`."""
    path = Path(run.cfg.paths.logs) / run.cfg.experiment_name / f"{run.stage}_{run.id}.csv"
    print(f"[{run.stage}] metrics: {path}")
    return TidyCSVLogger(path)


def wandb_logger(run: Run, project: str, entity: str | None = None) -> WandbLogger:
    """Weights & Biases; offline, with a message, if it is not reachable."""
    options = wandb_runs.init_options(
        run.cfg, project=project, entity=entity, kind=run.stage, number=run.id
    )
    return WandbLogger(save_dir=options.pop("dir"), **options)


def log_results(run: Run, metrics: Mapping[str, float]) -> None:
    """Write the final metrics of a stage to the summary of its W&B run, if W&B is the logger.

    The run is created here for stages without training.
    """
    if run.cfg.logger.name != "wandb":
        return
    if (current := _current_wandb_run()) is None:
        current = build_logger(run).experiment
    current.summary.update(dict(metrics))


def close() -> None:
    """Finish the current W&B run, if any; otherwise later runs would continue it."""
    if (current := _current_wandb_run()) is None:
        return
    try:
        current.finish()
    except ConnectionError as error:
        # signals of a scheduler also end W&B's process; this must not hide why the job ends
        print(f"W&B ended first ({error}): its logged data is kept", file=sys.stderr)


def log_figure(logger: Logger | None, name: str, figure: Figure) -> None:
    """Log a figure, if the logger supports images."""
    if isinstance(logger, WandbLogger):
        logger.log_image(name, [figure])


def _current_wandb_run() -> object | None:
    wandb = sys.modules.get("wandb")  # slow to import, so never imported here
    return None if wandb is None else wandb.run
