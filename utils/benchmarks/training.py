"""Training steps at the paper's sizes, on the Banana and on images, vs. a bare training loop."""

import copy
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from lossyless.base import Batch
from lossyless.compressors import LearnableCompressor
from utils.benchmarks.comparison import Comparison, Goal, seconds
from utils.benchmarks.setups import banana_config, images_config, short_trainer
from utils.training import building, fitting

N_WARM_UP = 2  # steps without measurement


class BareLoop:
    """The training of a `LearnableCompressor` without trainer, hooks, metrics and checks.

    Works on a copy of the compressor, with the same optimisers.
    """

    def __init__(self, compressor: LearnableCompressor):
        self.model = copy.deepcopy(compressor).train()
        self.weight_r = compressor.beta * compressor.factor_beta_r
        self.compressor_parameters = self._trainable("p_ZlX", "rate", "distortion")
        self.online_parameters = self._trainable("online")
        self.compressor_optimizer = compressor.optimizer.optimizer(self.compressor_parameters)
        self.online_optimizer = compressor.online_optimizer.optimizer(self.online_parameters)

    def step(self, batch: Batch) -> None:
        """One training step, with one backward pass for compressor and probe."""
        loss, z_hat = self._compressor_loss(batch)
        probe_losses, _ = self.model.online.losses(z_hat, batch.y)
        self.compressor_optimizer.zero_grad()
        self.online_optimizer.zero_grad()
        (loss + probe_losses.mean()).backward()
        self._update_compressor()
        self._update_online()

    def _trainable(self, *names: str) -> list[torch.nn.Parameter]:
        modules = [self.model.get_submodule(name) for name in names]
        return [p for module in modules for p in module.parameters() if p.requires_grad]

    def _encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """z_hat [B, z_dim] and rates [B] in nats."""
        p_ZlX = self.model.p_ZlX(batch.x)
        z_hat, rates, _ = self.model.rate(p_ZlX.rsample(), p_ZlX)
        return z_hat, rates

    def _compressor_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        z_hat, rates = self._encode(batch)
        distortions, _ = self.model.distortion(z_hat, batch.aux)
        loss = distortions.mean() / self.model.factor_beta_d + self.weight_r * rates.mean()
        return loss, z_hat

    def _update_compressor(self) -> None:
        if self.model.optimizer.max_grad_norm is not None:
            clip_grad_norm_(self.compressor_parameters, self.model.optimizer.max_grad_norm)
        self.compressor_optimizer.step()

    def _update_online(self) -> None:
        if self.model.online_optimizer.max_grad_norm is not None:
            clip_grad_norm_(self.online_parameters, self.model.online_optimizer.max_grad_norm)
        self.online_optimizer.step()


class Interleaved(Callback):
    """Alternates steps of the trainer with steps of the reference on the same batch, timing both.

    A step of the trainer includes its data, hooks and metrics.
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
    """Seconds per step."""
    return [
        Comparison(what, "bare loop", "s", *measure_steps(config, n_steps), Goal(high=1.15))
        for what, config, n_steps in (
            ("training step of the Banana", banana_config, 5 if is_quick else 20),
            ("... of a ResNet18 on 32x32 images", images_config, 2 if is_quick else 6),
        )
    ]


def measure_steps(
    make_config: Callable[[Path], DictConfig], n_steps: int
) -> tuple[list[float], list[float]]:
    """Seconds of each step of our trainer and of the bare loop, alternating.

    Parameters
    ----------
    make_config : from an output folder to a config.
    """
    fitting.quiet()
    with tempfile.TemporaryDirectory() as folder:
        cfg = make_config(Path(folder))
        compressor = building.build_compressor(cfg)
        data = building.build_data(cfg, "data_feat", compressor.distortion.needs)
        interleaved = Interleaved(BareLoop(compressor))
        short_trainer(cfg, N_WARM_UP + n_steps, interleaved).fit(compressor, datamodule=data)
    return interleaved.trainer_seconds[N_WARM_UP:], interleaved.reference_seconds[N_WARM_UP:]
