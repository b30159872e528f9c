"""Base class for Lightning modules whose parts are trained jointly."""

from abc import abstractmethod

import pytorch_lightning as pl
import torch
from torch import nn

from lossyless.base import Batch
from lossyless.optim import PartOptimizer, configure_parts
from lossyless.tracking import LossTracker, NonFiniteLossError


class JointlyTrained(pl.LightningModule):
    """Base class for modules whose parts are trained jointly; a `LossTracker` tracks their metrics.

    Plateau schedules follow the metric that selects the best epoch or, if there is none, the
    validation loss. Training steps call `training_losses`: `losses`, or its compiled version.
    """

    tracker: LossTracker

    @abstractmethod
    def losses(self, batch: Batch, **options: object) -> tuple:
        """Return losses [B] and metrics of a batch; training steps may use a compiled version."""

    def training_losses(self, batch: Batch, **options: object) -> tuple:
        return self.losses(batch, **options)

    def compile_losses(self, mode: str | None = None) -> None:
        """Compile `losses` for training steps with `torch.compile`, as one graph per input shape.

        Parameters, buffers and their names are unchanged. Evaluation is not compiled, so that it
        rounds as the coder does. `mode`: see `torch.compile`; "reduce-overhead" uses CUDA graphs.
        """
        self.training_losses = torch.compile(self.losses, mode=mode, fullgraph=True, dynamic=False)

    @abstractmethod
    def parts(self) -> dict[str, tuple[nn.Module | list[nn.Module], PartOptimizer]]:
        """See `configure_parts`."""

    @abstractmethod
    def evaluation_step(self, batch: Batch, split: str) -> None:
        """Add the metrics of a batch from split "val" or "test" to the tracker."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluation_step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluation_step(batch, "test")

    def on_train_epoch_end(self) -> None:
        self.tracker.log_epoch(self)
        if not torch.nn.utils.get_total_norm(self.parameters()).isfinite():
            raise NonFiniteLossError.at(self.global_step, "the weights are NaN or infinite")
        self.lr_schedulers().step(self.trainer.callback_metrics)

    def configure_optimizers(self) -> dict:
        monitors = (c.monitor for c in self.trainer.checkpoint_callbacks if c.monitor is not None)
        monitor = next(monitors, f"val/{self.tracker.stage}/loss")
        return configure_parts(self.parts(), self.trainer.max_epochs, monitor)

    def configure_gradient_clipping(self, optimizer, *args, **kwargs) -> None:
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None and optimizer._step_supports_amp_scaling:
            scaler.unscale_(optimizer)  # Lightning leaves unscaling to such optimisers
        optimizer.clip_gradients()

    def lr_scheduler_step(self, scheduler, metric) -> None:
        """Do nothing: `on_train_epoch_end` steps the schedules."""
