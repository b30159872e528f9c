"""Training steps at the size of the paper's Banana, against loops without a trainer."""

import tempfile
import time
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from utils import training
from utils.benchmarks.comparison import Comparison, Goal, seconds
from utils.benchmarks.loops import BareLoop, ThreePasses
from utils.benchmarks.setups import banana_config, banana_trainer

N_WARM_UP = 3  # steps that do not count


class Interleaved(Callback):
    """Takes a step of each reference between any two steps of the trainer, and times all.

    A step of the trainer lasts from the end of the references' to the end of the next batch, with
    its data, hooks and metrics.
    """

    def __init__(self, references: list[BareLoop]):
        self.references = references
        self.trainer_seconds: list[float] = []
        self.reference_seconds: list[list[float]] = [[] for _ in references]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs, batch, batch_idx: int
    ) -> None:
        self.trainer_seconds.append(time.perf_counter() - self._start)
        for reference, measured in zip(self.references, self.reference_seconds, strict=True):
            measured.append(seconds(lambda reference=reference: reference.step(batch)))
        self._start = time.perf_counter()


def compare(is_quick: bool) -> list[Comparison]:
    """Seconds per step against the bare loop and against three passes."""
    ours, bare, three = measure_steps(5 if is_quick else 20)
    what = "training step of the Banana"
    return [
        Comparison(what, "bare loop", "s", ours, bare, Goal(high=1.15)),
        Comparison(what, "three passes", "s", ours, three, Goal(high=1)),
    ]


def measure_steps(n_steps: int, *overrides: str) -> tuple[list[float], list[float], list[float]]:
    """Seconds of each step of our trainer, of the bare loop and of three passes, alternating."""
    training.quiet()
    with tempfile.TemporaryDirectory() as folder:
        cfg = banana_config(Path(folder), *overrides)
        compressor = training.build_compressor(cfg)
        data = training.build_data(cfg, "data_feat", compressor.distortion.needs)
        interleaved = Interleaved([BareLoop(compressor), ThreePasses(compressor)])
        banana_trainer(cfg, N_WARM_UP + n_steps, interleaved).fit(compressor, datamodule=data)
    bare, three = interleaved.reference_seconds
    return interleaved.trainer_seconds[N_WARM_UP:], bare[N_WARM_UP:], three[N_WARM_UP:]
