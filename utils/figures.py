"""Draws a compressor's figures: always to disk, and to the logger if it takes pictures."""

from collections.abc import Iterable

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger

from lossyless.compressors import LearnableCompressor
from utils import loggers
from utils.data.base import DataModule
from utils.plots import draw
from utils.runs import Run


def draw_all(
    names: Iterable[str],
    compressor: LearnableCompressor,
    data: DataModule,
    run: Run,
    logger: Logger | None,
) -> None:
    """Draw the named figures (keys of `utils.plots.FIGURES`) into the run's folder."""
    for name in names:
        file_name, figure = draw(name, compressor, data)
        figure.savefig(run.results / file_name)
        loggers.log_figure(logger, name, figure)


class DrawWhileTraining(Callback):
    """Draws the figures every so many epochs, after validation; the files show the latest state."""

    def __init__(self, names: Iterable[str], every_n_epochs: int, data: DataModule, run: Run):
        self.names = list(names)
        self.every_n_epochs = every_n_epochs
        self.data = data
        self.run = run

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        is_training = trainer.state.fn == "fit"
        if is_training and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            draw_all(self.names, pl_module, self.data, self.run, trainer.logger)
