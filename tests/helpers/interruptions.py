"""Intervene in the middle of training, e.g. to end it; wait for a condition."""

import time
from collections.abc import Callable

from pytest import MonkeyPatch
from pytorch_lightning.callbacks import LambdaCallback

from utils.training import fitting


def in_training(
    patch: MonkeyPatch, epoch: int, what: Callable, *, step: int = 1, rank: int = 0
) -> None:
    """Call `what(module, batch)` in one process before a step of an epoch (both counted from 0)."""

    def on_train_batch_start(trainer, module, batch, batch_idx) -> None:
        if (trainer.current_epoch, batch_idx, trainer.global_rank) == (epoch, step, rank):
            what(module, batch)

    callback = LambdaCallback(on_train_batch_start=on_train_batch_start)
    patch.setattr(fitting, "KeepSignals", lambda: callback)  # needed only under a scheduler


def interrupt(patch: MonkeyPatch, error: BaseException, epoch: int = 1, rank: int = 0) -> None:
    """End training with an error in the middle of an epoch."""

    def fail(module, batch) -> None:
        raise error

    in_training(patch, epoch, fail, rank=rank)


def wait_until(condition: Callable[[], object], seconds: float = 120) -> None:
    """Poll until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"the condition did not hold within {seconds} seconds"
        time.sleep(0.02)
