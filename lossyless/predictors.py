"""Downstream tasks: losses and metrics of predictors, and the modules that train them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossyless.architectures import Architecture, Standardize
from lossyless.base import Batch
from lossyless.joint_training import JointlyTrained
from lossyless.optim import PartOptimizer
from lossyless.tracking import LossTracker

TASKS = ("classification", "regression")


class PredictionHead(nn.Module):
    """A network with the loss and the metrics of its task.

    Parameters
    ----------
    arch : architecture of the network.
    in_shape : shape of one input.
    task : "classification" (cross-entropy in nats, accuracy) or "regression" (squared error,
        averaged over the outputs).
    n_outputs : number of classes, or dimensions of the target.
    mean, std : channel statistics used to standardise images before the network; no
        standardisation if both are None.
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
        self.n_outputs = n_outputs
        self.network = arch(tuple(in_shape), (n_outputs,))

    def forward(self, x: Tensor) -> Tensor:  # [B, *in_shape] -> [B, n_outputs]
        return self.network(self.standardize(x))

    def losses(self, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses [B] for predicting y from x, and the metrics averaged over the batch."""
        return self.average(self.examples(x, y))

    def examples(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Metrics of each example: "loss" [B] and "acc" [B] for classification, "loss"
        [B, n_outputs] for regression."""
        prediction = self(x).float()
        if self.task == "regression":
            y = y.float().view_as(prediction)
            return {"loss": F.mse_loss(prediction, y, reduction="none")}
        losses = F.cross_entropy(prediction, y, reduction="none")
        return {"loss": losses, "acc": (prediction.argmax(-1) == y).float()}

    def average(self, examples: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Reduce the metrics returned by `examples` to losses [B] and batch means."""
        losses = examples["loss"]
        losses = losses.mean(-1) if self.task == "regression" else losses
        metrics = {name: values.mean().detach() for name, values in examples.items()}
        return losses, metrics | ({"err": 1 - metrics["acc"]} if "acc" in metrics else {})


class OnlineEvaluator(PredictionHead):
    """A probe trained alongside the compressor, on its detached representations.

    It does not affect the compressor. It shows during training how well z_hat predicts the target.
    """

    def losses(self, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        losses, metrics = super().losses(x.detach(), y)
        return losses, {f"online_{name}": value for name, value in metrics.items()}


class SplitMetrics:
    """Metrics of a whole split that are not averages over its examples.

    balanced_loss, balanced_acc, balanced_err : for classification, averages over classes of the
        mean within each class: examples have weights proportional to 1 / (size of their class).
        Classes without examples are ignored.
    tasks_{min,max,mean,median,std} : for regression with several outputs, statistics of the
        outputs' mean squared errors.
    """

    def __init__(self, head: PredictionHead):
        self.task, self.n_outputs = head.task, head.n_outputs
        self._sums: Tensor | float = 0.0  # [n_metrics + 1, n_outputs]; the last row counts examples

    def add(self, examples: dict[str, Tensor], y: Tensor) -> None:
        """Add the result of `PredictionHead.examples` for a batch."""
        values = torch.stack([*examples.values(), torch.ones_like(examples["loss"])]).double()
        if self.task == "classification":
            self._sums = self._sums + values @ F.one_hot(y, self.n_outputs).double()
        else:
            self._sums = self._sums + values.sum(1)

    def metrics(self) -> dict[str, Tensor]:
        """Compute the metrics over all batches so far."""
        is_seen = self._sums[-1] > 0
        means = (self._sums[:-1] / self._sums[-1])[:, is_seen]
        if self.task == "classification":
            loss, acc = means.mean(1)
            return {"balanced_loss": loss, "balanced_acc": acc, "balanced_err": 1 - acc}
        if self.n_outputs == 1:
            return {}
        names = ("min", "max", "mean", "median", "std")
        tasks = {f"tasks_{name}": getattr(means[0], name)() for name in names}
        # with an even number of values, torch's median is the lower of the two middle ones
        return tasks | {"tasks_median": means[0].quantile(0.5)}


class Predictor(JointlyTrained):
    """A module that learns a downstream task from decoded representations."""

    def __init__(self, head: PredictionHead, optimizer: PartOptimizer):
        super().__init__()
        self.head = head
        self.optimizer = optimizer
        self.tracker = LossTracker("pred")

    def forward(self, x: Tensor) -> Tensor:  # [B, *in_shape] -> [B, n_outputs]
        return self.head(x)

    def losses(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses [B] of a batch, and the metrics averaged over it."""
        return self.head.losses(batch.x, batch.y)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        losses, metrics = self.training_losses(batch)
        self.tracker.add(self, "train", metrics, batch_size=len(batch.x))
        return losses.mean()

    def evaluation_step(self, batch: Batch, split: str) -> None:
        examples = self.head.examples(batch.x, batch.y)
        _, metrics = self.head.average(examples)
        self.tracker.add(self, split, metrics, batch_size=len(batch.x))
        self._split_metrics.add(examples, batch.y)

    def _log_split(self, split: str) -> None:
        metrics = self._split_metrics.metrics()
        self.log_dict({f"{split}/pred/{name}": value for name, value in metrics.items()})

    def on_validation_epoch_start(self) -> None:
        self._split_metrics = SplitMetrics(self.head)

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_epoch_end(self) -> None:
        self._log_split("val")

    def on_test_epoch_end(self) -> None:
        self._log_split("test")

    def parts(self) -> dict[str, tuple[nn.Module, PartOptimizer]]:
        return {"predictor": (self.head, self.optimizer)}
