"""Do something in the middle of a training, such as ending it; wait for what others do."""

import time
from collections.abc import Callable

from pytest import MonkeyPatch
from pytorch_lightning.callbacks import LambdaCallback

from utils.training import fitting


def in_training(
    patch: MonkeyPatch, epoch: int, what: Callable, *, step: int = 1, rank: int = 0
) -> None:
    """Call `what(module, batch)` in one process before a step of an epoch (both from 0)."""

    def on_train_batch_start(trainer, module, batch, batch_idx) -> None:
        if (trainer.current_epoch, batch_idx, trainer.global_rank) == (epoch, step, rank):
            what(module, batch)

    callback = LambdaCallback(on_train_batch_start=on_train_batch_start)
    patch.setattr(fitting, "KeepSignals", lambda: callback)  # which matters in schedulers only


def interrupt(patch: MonkeyPatch, error: BaseException, epoch: int = 1, rank: int = 0) -> None:
    """End a training with an error in the middle of an epoch."""

    def fail(module, batch) -> None:
        raise error

    in_training(patch, epoch, fail, rank=rank)


def wait_until(condition: Callable[[], object], seconds: float = 120) -> None:
    """Poll until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} seconds"
        time.sleep(0.02)
