"""Training metrics: averaged on the device, logged once per epoch, checked for NaN and infinity."""

import math

import pytorch_lightning as pl
import torch
from torch import Tensor

# Metrics that are extremes over an evaluated split; all others are means over its examples.
REDUCTIONS = {"zmin": "min", "zmax": "max"}


class NonFiniteLossError(ArithmeticError):
    """A term of the loss, or a weight, became NaN or infinite."""

    @classmethod
    def at(cls, step: int, what: str) -> "NonFiniteLossError":
        return cls(
            f"training stopped at step {step}: {what}. The last good checkpoint is kept. Try a "
            "lower learning rate, gradient clipping or 32-bit precision."
        )


class LossTracker:
    """Average the metrics of a LightningModule, separately for each split.

    Training metrics, including minima and maxima, are averages over steps. They are summed in one
    tensor on the device and logged at the end of the epoch. Every `log_every_n_steps` steps of the
    trainer, and at the end of the epoch, they are checked for NaN and infinity; at no other step
    does the host wait for the GPU. Evaluation metrics go through the module's `log`. All metrics
    are logged as `<split>/<stage>/<name>`; `stage` is "feat" or "pred".
    """

    def __init__(self, stage: str):
        self.stage = stage
        self._names: list[str] = []
        self._sum: Tensor | None = None
        self._n_steps = 0
        self._unchecked: list[tuple[int, Tensor]] = []

    def add(
        self, module: pl.LightningModule, split: str, metrics: dict[str, Tensor], batch_size: int
    ) -> None:
        """Add the metrics (0-dim tensors) of one batch."""
        if split != "train":
            for name, value in metrics.items():
                module.log(
                    f"{split}/{self.stage}/{name}",
                    value,
                    batch_size=batch_size,
                    on_epoch=True,
                    on_step=False,
                    reduce_fx=REDUCTIONS.get(name, "mean"),
                )
            return
        values = torch.stack([value.float() for value in metrics.values()])
        self._names = list(metrics)
        self._sum = values if self._sum is None else self._sum + values
        self._n_steps += 1
        self._unchecked.append((module.global_step, values))
        every = module.trainer.log_every_n_steps
        if every and (module.global_step + 1) % every == 0:
            self.check_finite()

    def check_finite(self) -> None:
        """Raise `NonFiniteLossError` if a metric is not finite, naming the first such step."""
        if not self._unchecked:
            return
        steps, values = zip(*self._unchecked, strict=True)
        self._unchecked = []
        for step, row in zip(steps, torch.stack(values).tolist(), strict=True):
            bad = [n for n, v in zip(self._names, row, strict=True) if not math.isfinite(v)]
            if bad:
                terms = ", ".join(f"{name}={row[self._names.index(name)]}" for name in bad)
                raise NonFiniteLossError.at(step, terms)

    def log_epoch(self, module: pl.LightningModule) -> None:
        """Log the means over the training epoch, and reset the sums."""
        self.check_finite()
        if self._sum is None:
            return
        means = self._sum / self._n_steps
        for name, mean in zip(self._names, means.unbind(), strict=True):
            on_bar = name == "loss"
            module.log(f"train/{self.stage}/{name}", mean, prog_bar=on_bar, sync_dist=True)
        self._sum, self._n_steps = None, 0
