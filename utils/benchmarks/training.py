"""Benchmarks of training steps at the paper's sizes vs. a bare training loop."""

import copy
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain, count, repeat
from pathlib import Path

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback
from torch.nn.utils import clip_grad_norm_

from lossyless.base import Batch
from lossyless.compressors import LearnableCompressor
from utils.benchmarks.comparison import Comparison, seconds
from utils.configs.composing import compose_config
from utils.data.module import DataModule
from utils.runs.run import find_run
from utils.training import building, fitting

N_WARM_UP = 2  # steps that are not measured


# --- compressors, data and trainers, built from configs as in main.py


def banana_config(folder: Path, *overrides: str) -> DictConfig:
    """Config for VIC on the rotation-invariant Banana, on a CPU, with all output in `folder`."""
    return _config(folder, "experiment=banana_viz_VIC", *overrides)


def images_config(folder: Path, *overrides: str) -> DictConfig:
    """Config for VIC with a ResNet18 and a hyperprior, as in the paper's augmented MNIST runs.

    The images are scikit-learn's digits at the same size (32x32), so nothing is downloaded.
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


class OneEpoch(DataModule):
    """A single training epoch of `n_steps` batches.

    Parameters
    ----------
    source : a data set, whose epochs are chained as needed; or a batch, which is repeated.
    """

    def __init__(self, source: DataModule | Batch, n_steps: int):
        super().__init__(
            batch_size=len(source.x) if isinstance(source, Batch) else source.batch_size
        )
        self.source = source
        self.n_steps = n_steps

    def n_examples(self, split: str) -> int:
        return self.n_steps * self.batch_size

    def make_batches(
        self, split: str, *, generator: torch.Generator, **_: object
    ) -> Iterator[Batch]:
        device = generator.device
        if isinstance(self.source, Batch):
            on_device = (None if part is None else part.to(device) for part in self.source)
            return repeat(Batch(*on_device), self.n_steps)
        epochs = (self.source.loader(split, device=device, epoch=epoch) for epoch in count())
        return chain.from_iterable(epochs)


# --- the trainer against a bare loop


class BareLoop:
    """Trains a `LearnableCompressor` without a trainer, hooks, metrics or checks.

    It trains a copy of the compressor, with the same optimiser settings.
    """

    def __init__(self, compressor: LearnableCompressor):
        self.model = copy.deepcopy(compressor).train()
        self.updates = []
        for settings, names in (
            (compressor.optimizer, ("p_ZlX", "rate", "distortion")),
            (compressor.online_optimizer, ("online",)),
        ):
            modules = [self.model.get_submodule(name) for name in names]
            trained = [p for module in modules for p in module.parameters() if p.requires_grad]
            self.updates.append((settings.optimizer(trained), trained, settings.max_grad_norm))

    def step(self, batch: Batch) -> None:
        """Take a training step, with a single backward pass for the compressor and the probe."""
        model = self.model
        p_ZlX = model.p_ZlX(batch.x)
        z_hat, rates, _ = model.rate(p_ZlX.rsample(), p_ZlX)
        distortions, _ = model.distortion(z_hat, batch.aux)
        loss = distortions.mean() / model.factor_beta_d
        loss = loss + model.beta * model.factor_beta_r * rates.mean()
        probe_losses, _ = model.online.losses(z_hat, batch.y)
        for optimizer, _, _ in self.updates:
            optimizer.zero_grad()
        (loss + probe_losses.mean()).backward()
        for optimizer, trained, max_norm in self.updates:
            if max_norm is not None:
                clip_grad_norm_(trained, max_norm)
            optimizer.step()


class Interleaved(Callback):
    """Alternates steps of the trainer and the reference on the same batches, and times both.

    A step of the trainer includes data loading, hooks and metrics.
    """

    def __init__(self, reference: BareLoop):
        self.reference = reference
        self.trainer_seconds: list[float] = []
        self.reference_seconds: list[float] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs, batch, batch_idx: int
    ) -> None:
        self.trainer_seconds.append(time.perf_counter() - self._start)
        self.reference_seconds.append(seconds(lambda: self.reference.step(batch)))
        self._start = time.perf_counter()


def compare(is_quick: bool) -> list[Comparison]:
    """Compare seconds per step."""
    return [
        Comparison(what, "bare loop", "s", *measure_steps(config, n_steps), high=1.15)
        for what, config, n_steps in (
            ("training step of the Banana", banana_config, 5 if is_quick else 20),
            ("... of a ResNet18 on 32x32 images", images_config, 2 if is_quick else 6),
        )
    ]


def measure_steps(
    make_config: Callable[[Path], DictConfig], n_steps: int
) -> tuple[list[float], list[float]]:
    """Seconds that each step takes in our trainer and in the bare loop, which alternate.

    Parameters
    ----------
    make_config : function that returns the config for an output folder.
    """
    fitting.quiet()
    with tempfile.TemporaryDirectory() as folder:
        cfg = make_config(Path(folder))
        compressor = building.build_compressor(cfg)
        data = building.build_data(cfg, "data_feat", compressor.distortion.needs)
        interleaved = Interleaved(BareLoop(compressor))
        short_trainer(cfg, N_WARM_UP + n_steps, interleaved).fit(compressor, datamodule=data)
    return interleaved.trainer_seconds[N_WARM_UP:], interleaved.reference_seconds[N_WARM_UP:]
