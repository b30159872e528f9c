"""Averages over training steps, and the check that they are finite."""

import math
from types import SimpleNamespace

import pytest
import torch

from lossyless.tracking import LossTracker, NonFiniteLossError


class Module:
    """Records what a LightningModule would log."""

    def __init__(self, check_every: int = 1):
        self.global_step = 0
        self.trainer = SimpleNamespace(log_every_n_steps=check_every)
        self.logged = {}

    def log(self, name, value, **kwargs):
        self.logged[name] = value.item()


def add_steps(tracker, module, losses):
    for loss in losses:
        metrics = {"loss": torch.tensor(loss), "rate": torch.tensor(2 * loss)}
        tracker.add(module, "train", metrics, batch_size=4)
        module.global_step += 1


def test_training_metrics_are_averaged_over_an_epoch_and_reset():
    tracker, module = LossTracker("feat"), Module()
    for losses, mean in (([1.0, 2.0, 6.0], 3.0), ([5.0], 5.0)):
        add_steps(tracker, module, losses)
        assert module.logged == {} or module.logged["train/feat/loss"] == 3.0
        tracker.log_epoch(module)
        assert module.logged == {"train/feat/loss": mean, "train/feat/rate": 2 * mean}


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_the_first_non_finite_step_is_reported_even_if_checked_later(value):
    tracker, module = LossTracker("feat"), Module(check_every=10)
    add_steps(tracker, module, [1.0, 1.0])
    bad = {"loss": torch.tensor(1.0), "rate": torch.tensor(value)}
    tracker.add(module, "train", bad, batch_size=4)
    module.global_step += 1
    with pytest.raises(NonFiniteLossError, match=rf"step 2.*rate={value}\b"):
        add_steps(tracker, module, [math.nan] * 10)
    add_steps(tracker, module, [1.0, math.nan])
    with pytest.raises(NonFiniteLossError, match=r"step \d+.*loss=nan"):  # even after fewer steps
        tracker.log_epoch(module)
    assert module.logged == {}
