"""Training steps at the paper's sizes, of the Banana and of images, against other loops."""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytorch_lightning as pl
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback

from utils.benchmarks.comparison import Comparison, Goal, seconds
from utils.benchmarks.loops import BareLoop, ThreePasses
from utils.benchmarks.setups import banana_config, images_config, short_trainer
from utils.training import building, fitting

N_WARM_UP = 2  # steps that do not count


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
    n_steps = 5 if is_quick else 20
    ours, (bare, three) = measure_steps(banana_config, n_steps, [BareLoop, ThreePasses])
    what = "training step of the Banana"
    rows = [
        Comparison(what, "bare loop", "s", ours, bare, Goal(high=1.15)),
        Comparison(what, "three passes", "s", ours, three, Goal(high=1)),
    ]
    ours, (three,) = measure_steps(images_config, 2 if is_quick else 6, [ThreePasses])
    what = "training step of a ResNet18 on 32x32 images"
    return [*rows, Comparison(what, "three passes", "s", ours, three, Goal(high=0.8))]


def measure_steps(
    make_config: Callable[[Path], DictConfig], n_steps: int, loop_types: Sequence[type[BareLoop]]
) -> tuple[list[float], list[list[float]]]:
    """Seconds of each step of our trainer, and of each kind of loop, alternating.

    Parameters
    ----------
    make_config : from a folder for what is written to a config.
    """
    fitting.quiet()
    with tempfile.TemporaryDirectory() as folder:
        cfg = make_config(Path(folder))
        compressor = building.build_compressor(cfg)
        data = building.build_data(cfg, "data_feat", compressor.distortion.needs)
        interleaved = Interleaved([make_loop(compressor) for make_loop in loop_types])
        short_trainer(cfg, N_WARM_UP + n_steps, interleaved).fit(compressor, datamodule=data)
    references = [measured[N_WARM_UP:] for measured in interleaved.reference_seconds]
    return interleaved.trainer_seconds[N_WARM_UP:], references
