"""Loggers. None asks or blocks, and none is needed: results and figures are always on disk."""

import netrc
import os
import socket
import sys
from pathlib import Path

from matplotlib.figure import Figure
from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger

from utils.runs import Run

WANDB_HOST = "api.wandb.ai"


def csv_logger(run: Run) -> CSVLogger:
    """One CSV file per run, in the folder of the logs."""
    folder = Path(run.cfg.paths.logs) / run.cfg.experiment_name
    return CSVLogger(str(folder), name=run.stage, version=run.id)


def wandb_logger(run: Run, project: str, entity: str | None = None) -> WandbLogger:
    """Weights & Biases; offline, with a line that says so, where it cannot be reached."""
    import wandb  # takes long, so only for those who use it

    reason = wandb_obstacle()
    if reason:
        print(
            f"W&B logs offline ({reason}). Later: wandb sync {run.cfg.paths.logs}/wandb/offline-*"
        )
    folder = Path(run.cfg.paths.logs)
    folder.mkdir(parents=True, exist_ok=True)
    return WandbLogger(
        project=project,
        entity=entity,
        offline=reason is not None,
        save_dir=str(folder),
        id=f"{run.stage}-{run.id}",
        name=f"{run.cfg.experiment_name}-{run.stage}-{run.id}",
        group=run.cfg.experiment_name,
        tags=[run.cfg.mode_name],
        notes=run.cfg.goal,
        resume=None if reason else "allow",
        settings=wandb.Settings(silent=reason is not None),
    )


def wandb_obstacle() -> str | None:
    """Why runs cannot be uploaded now; None if they can."""
    if os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        return f"WANDB_MODE={os.environ['WANDB_MODE']}"
    if not os.environ.get("WANDB_API_KEY") and not _has_netrc_entry():
        return "no credentials: set WANDB_API_KEY or run `wandb login`"
    try:
        socket.create_connection((WANDB_HOST, 443), timeout=3).close()
    except OSError as error:
        return f"{WANDB_HOST} cannot be reached: {error}"
    return None


def _has_netrc_entry() -> bool:
    try:
        return netrc.netrc().authenticators(WANDB_HOST) is not None
    except (FileNotFoundError, netrc.NetrcParseError):
        return False


def close() -> None:
    """End the W&B run that is under way, if any: the loggers of later runs would go on in it."""
    wandb = sys.modules.get("wandb")  # which takes long to import for those who do not use it
    if wandb is not None and wandb.run is not None:
        wandb.finish()


def log_figure(logger: Logger | None, name: str, figure: Figure) -> None:
    """Hand a figure to the logger if it takes pictures."""
    if isinstance(logger, WandbLogger):
        logger.log_image(name, [figure])
