"""Draws a compressor's figures: always to disk, and to the logger if it takes pictures."""

from collections.abc import Iterable

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
