"""Draw figures of a compressor, save them, and send them to loggers that accept images."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger

from lossyless.atomic import replacing
from lossyless.compressors import LearnableCompressor
from utils.data.module import DataModule
from utils.plots import style
from utils.plots.figures import draw
from utils.runs.files import write_text
from utils.runs.run import Run
from utils.training import loggers

DRAWN = "figures.json"


def draw_all(
    names: Iterable[str],
    compressor: LearnableCompressor,
    data: DataModule,
    run: Run,
    logger: Logger | None = None,
    options: Mapping[str, Mapping[str, object]] | None = None,
) -> list[Path]:
    """Draw the named figures (keys of `utils.plots.figures.FIGURES`) and save them with the run.

    `options` maps names of figures to their options. Returns the paths of the saved files.
    """
    drawn, paths = _drawn(run), []
    for name in names:
        chosen = (options or {}).get(name, {})
        file_name, figure = draw(name, compressor, data, **chosen)
        paths.append(run.results / file_name)
        with style.defaults(), replacing(paths[-1]) as file:
            figure.savefig(file, format=paths[-1].suffix[1:])
        loggers.log_figure(logger, name, figure)
        if not chosen.get("filename"):  # a custom file does not replace the default one
            drawn[name] = file_name
    write_text(run.results / DRAWN, json.dumps(drawn, indent=2) + "\n")
    return paths


def missing(names: Iterable[str], run: Run) -> list[str]:
    """Return the names of the figures that are missing from the run's folder."""
    drawn = _drawn(run)
    return [n for n in names if n not in drawn or not (run.results / drawn[n]).is_file()]


def _drawn(run: Run) -> dict[str, str]:
    """File names of the figures drawn so far, keyed by figure name."""
    file = run.results / DRAWN
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


class DrawWhileTraining(Callback):
    """Every few epochs, draw figures after validation, overwriting the earlier files."""

    def __init__(self, names: Iterable[str], every_n_epochs: int, data: DataModule, run: Run):
        self.names = list(names)
        self.every_n_epochs = every_n_epochs
        self.data = data
        self.run = run

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        is_training = trainer.state.fn == "fit"
        if is_training and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            draw_all(self.names, pl_module, self.data, self.run, trainer.logger)
