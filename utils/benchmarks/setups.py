"""Compressors, data and trainers of benchmarks, built from configs as `main.py` builds them."""

from collections.abc import Iterator
from itertools import chain, count, repeat
from pathlib import Path

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback

from lossyless.base import Batch
from utils.configs.composing import compose_config
from utils.data.module import DataModule
from utils.runs.run import find_run
from utils.training import fitting

SMALL = ["encoder.kwargs.hid_dim=64", "decoder.kwargs.hid_dim=64", "online.kwargs.hid_dim=64"]


def banana_config(folder: Path, *overrides: str) -> DictConfig:
    """VIC on the rotation-invariant Banana, on a CPU, with all output in `folder`."""
    return _config(folder, "experiment=banana_viz_VIC", *overrides)


def images_config(folder: Path, *overrides: str) -> DictConfig:
    """VIC with a ResNet18 and a hyperprior, as in the paper's experiment on augmented MNIST.

    The images are scikit-learn's digits at the same size (32x32): nothing is downloaded.
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


def short_trainer(
    cfg: DictConfig, n_steps: int, *callbacks: Callback, stage: str = "featurizer"
) -> pl.Trainer:
    """A trainer for one epoch of `n_steps` steps, without validation."""
    options = {"max_epochs": 1, "limit_train_batches": n_steps, "limit_val_batches": 0}
    monitor = f"train/{'pred' if stage == 'predictor' else 'feat'}/loss"
    run = find_run(cfg, stage)
    return fitting.build_trainer(run, monitor, None, list(callbacks), options)


class OneBatch(DataModule):
    """A single training epoch in which one batch is repeated `n_steps` times."""

    def __init__(self, batch: Batch, n_steps: int):
        super().__init__(batch_size=len(batch.x))
        self.batch = batch
        self.n_steps = n_steps

    def n_examples(self, split: str) -> int:
        return self.n_steps * self.batch_size

    def make_batches(
        self, split: str, *, generator: torch.Generator, **_: object
    ) -> Iterator[Batch]:
        on_device = (None if part is None else part.to(generator.device) for part in self.batch)
        return repeat(Batch(*on_device), self.n_steps)


class RepeatedEpochs(DataModule):
    """A single training epoch of `n_steps` batches, made of as many epochs of `data` as needed."""

    def __init__(self, data: DataModule, n_steps: int):
        super().__init__(batch_size=data.batch_size)
        self.data = data
        self.n_steps = n_steps

    def n_examples(self, split: str) -> int:
        return self.n_steps * self.batch_size

    def make_batches(
        self, split: str, *, generator: torch.Generator, **_: object
    ) -> Iterator[Batch]:
        device = generator.device
        epochs = (self.data.loader(split, device=device, epoch=epoch) for epoch in count())
        return chain.from_iterable(epochs)
