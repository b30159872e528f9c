"""The Banana compressor and its trainer, built from the experiment's config as `main.py` does."""

from pathlib import Path

import pytorch_lightning as pl
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback

from utils import training
from utils.config import compose_config
from utils.runs import find_run

SMALL = ["encoder.kwargs.hid_dim=64", "decoder.kwargs.hid_dim=64", "online.kwargs.hid_dim=64"]


def banana_config(folder: Path, *overrides: str) -> DictConfig:
    """The experiment on rotations (VIC), on a CPU, with all that it writes in `folder`."""
    fixed = ["experiment=banana_viz_VIC", "distortion=VIC", "logger=none"]
    fixed += ["trainer.accelerator=cpu"]
    paths = [f"paths.{name}={folder / name}" for name in ("results", "pretrained", "outputs")]
    return compose_config([*fixed, *paths, *overrides])


def banana_trainer(cfg: DictConfig, n_steps: int, *callbacks: Callback) -> pl.Trainer:
    """A trainer of one epoch of `n_steps`, without validation."""
    options = {"max_epochs": 1, "limit_train_batches": n_steps, "limit_val_batches": 0}
    run = find_run(cfg, "featurizer")
    return training.build_trainer(run, "train/feat/loss", None, list(callbacks), options)
