"""Downstream tasks: the losses and metrics of predictors, and the modules that learn them."""

from collections.abc import Sequence

import pytorch_lightning as pl
import torch.nn.functional as F
from torch import Tensor, nn

from lossyless.architectures import Architecture, Standardize
from lossyless.batch import Batch
from lossyless.optim import PartOptimizer, configure_parts, monitored
from lossyless.tracking import LossTracker

TASKS = ("classification", "regression")


class PredictionHead(nn.Module):
    """A network with the loss and the metrics of its task.

    Parameters
    ----------
    arch : callable (in_shape, out_shape) -> Module
    in_shape : shape of what it predicts from.
    task : "classification" (cross-entropy in nats, accuracy) or "regression" (squared error,
        averaged over the outputs).
    n_outputs : number of classes, or dimensions of the target.
    mean, std : of the channels of images, which are standardised before the network; None for
        neither.
    """

    def __init__(
        self,
        arch: Architecture,
        in_shape: Sequence[int],
        task: str,
        n_outputs: int,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ):
        super().__init__()
        if task not in TASKS:
            raise ValueError(f"unknown task {task!r}: expected one of {TASKS}")
        if n_outputs < 1:
            raise ValueError(
                "the data set has no targets (n_outputs=0): train without a probe "
                "(featurizer.kwargs.online=null), and predict on another data set"
            )
        self.task = task
        self.standardize = Standardize(in_shape, mean, std)
        self.network = arch(tuple(in_shape), (n_outputs,))

    def forward(self, x: Tensor) -> Tensor:  # [B, *in_shape] -> [B, n_outputs]
        return self.network(self.standardize(x))

    def losses(self, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses [B] of predicting y from x, and the metrics averaged over the batch."""
        prediction = self(x).float()
        if self.task == "regression":
            losses = (prediction - y.float().view_as(prediction)).square().mean(-1)
            return losses, {"loss": losses.mean().detach()}
        losses = F.cross_entropy(prediction, y, reduction="none")
        acc = (prediction.argmax(-1) == y).float().mean()
        return losses, {"loss": losses.mean().detach(), "acc": acc, "err": 1 - acc}


class OnlineEvaluator(PredictionHead):
    """A probe that is trained beside the compressor, on its detached representations.

    It never moves the compressor: it only tells, while training, how much a predictor could
    still read from z_hat.
    """

    def losses(self, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        losses, metrics = super().losses(x.detach(), y)
        return losses, {f"online_{name}": value for name, value in metrics.items()}


class Predictor(pl.LightningModule):
    """The receiver: learns a downstream task from decoded representations.

    Parameters
    ----------
    head : PredictionHead
    optimizer : PartOptimizer
    """

    def __init__(self, head: PredictionHead, optimizer: PartOptimizer):
        super().__init__()
        self.head = head
        self.optimizer = optimizer
        self.tracker = LossTracker("pred")

    def forward(self, x: Tensor) -> Tensor:  # [B, *in_shape] -> [B, n_outputs]
        return self.head(x)

    def _step(self, batch: Batch, split: str) -> Tensor:
        losses, metrics = self.head.losses(batch.x, batch.y)
        self.tracker.add(self, split, metrics, batch_size=len(batch.x))
        return losses.mean()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._step(batch, "test")

    def on_train_epoch_end(self) -> None:
        self.tracker.log_epoch(self)
        self.lr_schedulers().step(self.trainer.callback_metrics)

    def configure_optimizers(self) -> dict:
        parts = {"predictor": (self.head, self.optimizer)}
        monitor = monitored(self.trainer, default="val/pred/loss")
        return configure_parts(parts, self.trainer.max_epochs, monitor)

    def configure_gradient_clipping(self, optimizer, *args, **kwargs) -> None:
        optimizer.clip_gradients()

    def lr_scheduler_step(self, scheduler, metric) -> None:
        """Nothing: see `JointScheduler`."""
