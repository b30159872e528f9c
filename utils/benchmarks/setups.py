"""Compressors and their trainer, built from configs as `main.py` does."""

from pathlib import Path

import pytorch_lightning as pl
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback

from utils.cluster.sweep import compose_config
from utils.runs.run import find_run
from utils.training import fitting

SMALL = ["encoder.kwargs.hid_dim=64", "decoder.kwargs.hid_dim=64", "online.kwargs.hid_dim=64"]


def banana_config(folder: Path, *overrides: str) -> DictConfig:
    """The experiment on rotations (VIC), on a CPU, with all that it writes in `folder`."""
    return _config(folder, "experiment=banana_viz_VIC", *overrides)


def images_config(folder: Path, *overrides: str) -> DictConfig:
    """VIC with a ResNet18 and a hyperprior, as the paper's on augmented MNIST, likewise.

    Images are digits of the same size (32x32), so that nothing is downloaded.
    """
    architectures = ("encoder=resnet18", "decoder=cnn_decoder", "online=mlp_probe")
    return _config(
        folder,
        "data@data_feat=digits",
        "data_feat.kwargs.side=32",
        "data_feat.kwargs.batch_size=32",
        "rate=H_hyper",
        "encoder.z_dim=128",
        *(f"architecture@{architecture}" for architecture in architectures),
        *overrides,
    )


def _config(folder: Path, *overrides: str) -> DictConfig:
    fixed = ["distortion=VIC", "logger=none", "trainer.accelerator=cpu"]
    paths = [f"paths.{name}={folder / name}" for name in ("results", "pretrained", "outputs")]
    return compose_config([*fixed, *paths, *overrides])


def short_trainer(cfg: DictConfig, n_steps: int, *callbacks: Callback) -> pl.Trainer:
    """A trainer of one epoch of `n_steps`, without validation."""
    options = {"max_epochs": 1, "limit_train_batches": n_steps, "limit_val_batches": 0}
    run = find_run(cfg, "featurizer")
    return fitting.build_trainer(run, "train/feat/loss", None, list(callbacks), options)
