"""Training loggers, which never prompt or block. Results and figures are always saved to disk."""

import sys
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from hydra.utils import instantiate
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from pytorch_lightning.loggers import Logger, WandbLogger
from torch import Tensor

from utils.runs.files import read_csv, write_text
from utils.runs.run import Run
from utils.training import wandb_runs


class TidyCSVLogger(Logger):
    """Log to a CSV file with columns `step`, `epoch` and one per metric; missing values are empty.

    Metrics logged at the same step share a row. Metrics without an epoch, such as the learning
    rates at the start of an epoch, go into the next row. The last row contains the evaluation of
    the best epoch.

    When training resumes, existing rows from the first newly logged step onwards belong to a
    repeated epoch and are dropped. The file is replaced atomically.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self._rows: dict[int, dict[str, str]] | None = None  # by step; None: nothing logged yet
        self._without_epoch: dict[str, str] = {}

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: object, *args: object, **kwargs: object) -> None:
        """Do nothing: the config is saved with the results."""

    def log_metrics(self, metrics: Mapping[str, Tensor | float], step: int | None = None) -> None:
        """Add metrics to the row of a step."""
        if self._rows is None:
            self._rows = {at: row for at, row in self._read().items() if at < step}
        values = {name: repr(float(value)) for name, value in metrics.items() if name != "epoch"}
        if "epoch" not in metrics:
            self._without_epoch |= values
            return
        row = self._rows.setdefault(step, {"step": str(step), "epoch": str(int(metrics["epoch"]))})
        row |= self._without_epoch | values
        self._without_epoch = {}

    def save(self) -> None:
        """Write all rows logged so far."""
        if self._rows:
            rows = pd.DataFrame(self._rows[step] for step in sorted(self._rows))
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.path, rows.to_csv(index=False, lineterminator="\r\n"))

    def finalize(self, status: str) -> None:
        self.save()

    def _read(self) -> dict[int, dict[str, str]]:
        """Rows of the existing file, keyed by step, without empty values."""
        if not self.path.is_file():
            return {}
        rows = [{k: v for k, v in row.items() if v} for row in read_csv(self.path)]
        try:
            return {int(row["step"]): row for row in rows}
        except (KeyError, ValueError) as error:
            raise ValueError(f"{self.path} is not a metrics log: move or delete it") from error


def build_logger(run: Run) -> Logger | None:
    """Build the logger of a run and log the run's config; return None for `logger=none`."""
    make = instantiate(run.cfg.logger.kwargs)
    if make is None:
        return None
    logger = make(run)
    logger.log_hyperparams(OmegaConf.to_container(run.cfg, resolve=True))
    return logger


def csv_logger(run: Run) -> TidyCSVLogger:
    """Return a logger that writes `<logs>/<experiment>/<stage>_<run id>.csv`, one file per run."""
    path = Path(run.cfg.paths.logs) / run.cfg.experiment_name / f"{run.stage}_{run.id}.csv"
    print(f"[{run.stage}] metrics: {path}")
    return TidyCSVLogger(path)


def wandb_logger(run: Run, project: str, entity: str | None = None) -> WandbLogger:
    """Return a W&B logger; if it has to log offline, print why."""
    options = wandb_runs.init_options(
        run.cfg, project=project, entity=entity, kind=run.stage, number=run.id
    )
    return WandbLogger(save_dir=options.pop("dir"), **options)


def log_results(run: Run, metrics: Mapping[str, float]) -> None:
    """If the logger is W&B, write the final metrics of a stage to the summary of its W&B run.

    For stages without training, the W&B run is created here.
    """
    if run.cfg.logger.name != "wandb":
        return
    if (current := _current_wandb_run()) is None:
        current = build_logger(run).experiment
    current.summary.update(dict(metrics))


def close() -> None:
    """Finish the current W&B run, if any, so that later runs do not continue it."""
    if (current := _current_wandb_run()) is None:
        return
    try:
        current.finish()
    except ConnectionError as error:
        # a scheduler's signals also end W&B's process; this must not mask why the job ends
        print(f"W&B's process ended first ({error}): the logged data is kept", file=sys.stderr)


def log_figure(logger: Logger | None, name: str, figure: Figure) -> None:
    """Log a figure if the logger supports images."""
    if isinstance(logger, WandbLogger):
        logger.log_image(name, [figure])


def _current_wandb_run() -> object | None:
    wandb = sys.modules.get("wandb")  # slow to import, so never imported here
    return None if wandb is None else wandb.run
