"""Checkpoints are written at intervals, at the end, and on signals; resumed runs are exact."""

import multiprocessing
import os
import signal
from types import SimpleNamespace

import pytest
import torch
from helpers.tiny import compose, run, untimed

from utils.runs import signals
from utils.runs.run import BEST, LAST, find_run
from utils.training import callbacks, checkpoints, fitting
from utils.training.callbacks import ReseedEveryEpoch, reseed

FORK = multiprocessing.get_context("fork")
SETTINGS = ["trainer.max_epochs=8", "is_only_feat=true"]
MINUTES = 4  # per epoch, on the clock of these tests


class Clock(ReseedEveryEpoch):
    """Makes each epoch take 4 minutes, and does something in the middle of one."""

    minutes, epoch, what = 0.0, -1, staticmethod(lambda: None)

    def on_train_epoch_start(self, trainer, module):
        super().on_train_epoch_start(trainer, module)
        Clock.minutes = MINUTES * (trainer.current_epoch + 1)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (self.epoch, 0):
            self.what()


@pytest.fixture
def at(monkeypatch):
    """Use the clock; do something in the middle of an epoch."""

    def use(epoch=-1, what=lambda: None):
        for name, value in (("minutes", 0.0), ("epoch", epoch), ("what", staticmethod(what))):
            monkeypatch.setattr(Clock, name, value)
        monkeypatch.setattr(fitting, "ReseedEveryEpoch", Clock)
        clock = SimpleNamespace(monotonic=lambda: 60 * Clock.minutes)
        monkeypatch.setattr(checkpoints, "time", clock)

    return use


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> dict[str, float]:
    return untimed(run(tmp_path_factory.mktemp("uninterrupted"), *SETTINGS))


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def work(folder, *overrides):
    return find_run(compose(folder, *SETTINGS, *overrides), "featurizer").work


def last_epoch(folder) -> int:
    """Number of epochs on disk."""
    return torch.load(work(folder) / LAST, weights_only=True)["epoch"] + 1


def run_and_kill(folder) -> None:
    process = FORK.Process(target=run, args=(folder, *SETTINGS))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def resumed(folder, monkeypatch) -> tuple[list[int], dict[str, float]]:
    """Continue a run; return the epochs that it trains, and its metrics."""
    epochs = []
    with monkeypatch.context() as patch:
        patch.setattr(callbacks, "reseed", lambda *p: epochs.append(p[-1]) or reseed(*p))
        metrics = run(folder, *SETTINGS)
    return epochs, untimed(metrics)


@pytest.mark.parametrize(("minutes", "written"), [(10, [3, 6, 8]), (0, [*range(1, 9)]), (99, [8])])
def test_checkpoints_are_written_once_the_interval_has_passed_and_at_the_end(
    tmp_path, monkeypatch, at, minutes, written
):
    """All three intervals belong to the same run. A best epoch is written before the last one."""
    at()
    found = []

    def write(content, path):
        found.append((path.name, content["epoch"] + 1))
        write_checkpoint(content, path)

    write_checkpoint = checkpoints.write_checkpoint
    monkeypatch.setattr(checkpoints, "write_checkpoint", write)
    interval = f"checkpoint.every_minutes={minutes}"
    run(tmp_path, *SETTINGS, interval)
    assert work(tmp_path) == work(tmp_path, interval)
    assert [epoch for name, epoch in found if name == LAST] == written
    bests = [epoch for name, epoch in found if name == BEST]
    assert bests == sorted(bests) and found[0][0] == BEST and found[-1][0] == LAST


def test_a_killed_run_loses_at_most_the_interval_and_resumes_exactly(
    tmp_path, monkeypatch, at, uninterrupted
):
    at(epoch=5, what=kill)  # in the 24th minute
    run_and_kill(tmp_path / "b")
    assert last_epoch(tmp_path / "b") == 3
    at()
    assert resumed(tmp_path / "b", monkeypatch) == ([3, 4, 5, 6, 7], uninterrupted)


def test_after_sigterm_in_a_scheduler_epochs_are_written_before_the_process_is_killed(
    tmp_path, monkeypatch, at, uninterrupted
):
    monkeypatch.setattr(signals, "is_terminated", lambda: Clock.minutes > 5 * MINUTES)
    at(epoch=6, what=kill)
    run_and_kill(tmp_path / "b")
    assert last_epoch(tmp_path / "b") == 6
    at()
    assert resumed(tmp_path / "b", monkeypatch)[1] == uninterrupted
