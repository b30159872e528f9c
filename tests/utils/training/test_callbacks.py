"""Callbacks: random numbers that depend only on the epoch, frozen modules, progress."""

from types import SimpleNamespace

import numpy as np
import torch
from helpers.tiny import resolved, run
from helpers.toy import assert_same_tensors

from utils.training import building
from utils.training.callbacks import ProgressLines, ReseedEveryEpoch, reseed


def draw():
    return torch.rand(3).tolist(), np.random.rand(3).tolist()


def test_the_same_parts_give_the_same_randomness():
    reseed(1, "epoch", 2)
    first = draw()
    draw()
    reseed(1, "epoch", 2)
    assert draw() == first
    for parts in ((2, "epoch", 2), (1, "weights", 2), (1, "epoch", 3)):
        reseed(*parts)
        assert draw() != first
    ReseedEveryEpoch(1).on_train_epoch_start(SimpleNamespace(current_epoch=2, global_rank=0), None)
    assert draw() == first


def test_a_frozen_encoder_does_not_change_and_training_prints_its_progress(tmp_path, capsys):
    run(tmp_path, "finetune=freezer", "is_only_feat=true")
    cfg = resolved(tmp_path, "finetune=freezer")
    trained, fresh = building.load_compressor(cfg), building.build_compressor(cfg)
    assert_same_tensors(trained.p_ZlX.state_dict(), fresh.p_ZlX.state_dict())
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) <= 3
    assert all(word in lines[-1] for word in ("100%", "featurizer", "rate"))


def test_progress_lines_are_rate_limited(capsys):
    progress = ProgressLines("label", seconds=1000)
    trainer = SimpleNamespace(
        global_step=0,
        estimated_stepping_batches=100,
        current_epoch=0,
        max_epochs=1,
        callback_metrics={},
    )
    progress.on_train_start(trainer, None)
    for step in range(1, 100):
        trainer.global_step = step
        progress.on_train_batch_end(trainer, None, None, None, step - 1)
    assert len(capsys.readouterr().err.splitlines()) == 1
