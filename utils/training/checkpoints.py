"""Checkpoints of the best and last epochs, kept in memory and written every few minutes."""

import copy
import os
import time
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from utils.runs import signals
from utils.runs.run import BEST, LAST, Run, write_checkpoint


class TimedCheckpoints(TorchCheckpointIO):
    """Keep copies of checkpoints in memory, and write them on request.

    A file is replaced only by a complete new one. Lightning would write to TMPDIR and, if that is
    on another disk, copy the file over the old checkpoint. With `every_minutes=0`, every checkpoint
    is written.
    """

    def __init__(self, every_minutes: float):
        super().__init__()
        self.seconds = 60 * every_minutes
        self._unwritten: dict[Path, dict] = {}
        self._last_write = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether it is time to write, or the process may be killed at any moment."""
        return signals.is_terminated() or time.monotonic() - self._last_write >= self.seconds

    def save_checkpoint(
        self, checkpoint: dict, path: str | Path, storage_options: object = None
    ) -> None:
        """Keep a copy on the model's device, replacing any earlier copy for the same path.

        Copying on the GPU takes almost no time, and the host does not wait for it.
        """
        others = {other: kept for other, kept in self._unwritten.items() if other != Path(path)}
        self._unwritten = {**others, Path(path): copy.deepcopy(checkpoint)}  # atomic if interrupted

    def load_checkpoint(self, path: str | Path, *args: object, **options: object) -> dict:
        """Read a checkpoint; if its folder has moved, update the paths in it.

        With the old paths, Lightning would forget the loss of the best epoch.
        """
        checkpoint = super().load_checkpoint(path, *args, **options)
        folder = os.path.realpath(Path(path).parent)  # in the form that Lightning compares
        for state in checkpoint["callbacks"].values():
            if (old := state.get("dirpath", folder)) != folder:
                state |= {key: _moved(value, old, folder) for key, value in state.items()}
        return checkpoint

    def write(self) -> None:
        """Write the checkpoints that are not on disk yet, in the order in which they were saved.

        Even if the process is killed in between, the best checkpoint on disk thus accounts for all
        epochs up to the last checkpoint on disk.
        """
        for path in list(self._unwritten):
            write_checkpoint(self._unwritten[path], path)
            del self._unwritten[path]
        self._last_write = time.monotonic()


def _moved(value: object, old: str, new: str) -> object:
    """Update a path, or the keys of a dictionary, after a folder has moved."""
    if isinstance(value, dict):
        return {_moved(path, old, new): score for path, score in value.items()}
    return value.replace(old, new) if isinstance(value, str) else value


class WriteCheckpoints(Checkpoint):
    """Write checkpoints after an epoch if due, at the end of training, on errors and on signals.

    A scheduler's SIGTERM does not end the process: from then on, every epoch is written. Only the
    main process has checkpoints to write.
    """

    def __init__(self, checkpoints: TimedCheckpoints):
        self.checkpoints = checkpoints

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.checkpoints.is_due:
            self.checkpoints.write()

    def on_train_batch_end(self, *args: object) -> None:
        if signals.is_terminated():
            self.checkpoints.write()

    on_validation_batch_end = on_train_batch_end

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.checkpoints.write()
        trainer.strategy.barrier()  # all processes then read the best checkpoint

    def on_exception(self, *args: object) -> None:
        self.checkpoints.write()


def checkpoint_callbacks(
    run: Run, monitor: str, every_n_epochs: int, checkpoints: TimedCheckpoints
) -> list[Checkpoint]:
    """Callbacks that save the best epoch and the last one, from which interrupted runs resume."""
    common = {
        "dirpath": run.work,
        "every_n_epochs": every_n_epochs,
        "save_on_train_epoch_end": True,
        "enable_version_counter": False,
    }
    best = ModelCheckpoint(filename=Path(BEST).stem, monitor=monitor, mode="min", **common)
    last = ModelCheckpoint(filename=Path(LAST).stem, **common)
    return [best, last, WriteCheckpoints(checkpoints)]
