"""Training callbacks for seeding, signals, freezing, compilation and progress."""

import time

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from lossyless.joint_training import JointlyTrained
from lossyless.progress import SECONDS, print_progress
from utils.data.module import derive_seed
from utils.runs import signals
from utils.runs.run import Run

# suffixes of the metrics shown in progress lines
SHOWN = ("/loss", "/rate", "/distortion", "/acc", "/online_acc")


class ReseedEveryEpoch(Callback):
    """Make the random numbers of each epoch depend only on the seed and the epoch.

    A resumed run therefore draws the same numbers as an uninterrupted one. In distributed training,
    each process draws its own noise for training, but all processes evaluate with the same noise.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        process = [trainer.global_rank] if trainer.global_rank else []
        reseed(self.seed, "epoch", trainer.current_epoch, *process)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.world_size > 1 and trainer.state.fn == "fit":
            reseed(self.seed, "validate", trainer.current_epoch)


class KeepSignals(Callback):
    """Restore our signal handlers, which Lightning replaces when it starts."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        signals.listen()

    on_validation_start = on_test_start = on_train_start


def reseed(*parts: int | str) -> None:
    """Seed the global generators of torch and NumPy with a hash of `parts`."""
    seed = derive_seed(*parts)
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)


class Freezer(Callback):
    """Freeze the named modules: no gradients, and evaluation mode while the others train."""

    def __init__(self, names: list[str]):
        self.names = names

    def _modules(self, pl_module: pl.LightningModule) -> list[torch.nn.Module]:
        return [pl_module.get_submodule(name) for name in self.names]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        for module in self._modules(pl_module):
            module.requires_grad_(False)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for module in self._modules(pl_module):
            module.eval()


class CompileLosses(Callback):
    """Compile the loss computation of training steps; on a GPU, with CUDA graphs."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: JointlyTrained) -> None:
        torch.compiler.reset()  # torch limits the number of graphs per process
        pl_module.compile_losses("reduce-overhead" if pl_module.device.type == "cuda" else None)


class NoteEpoch(Callback):
    """Record the number of finished epochs in the status file of a run."""

    def __init__(self, run: Run):
        self.run = run

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._note(trainer, trainer.current_epoch)  # not 0 if training resumes

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._note(trainer, trainer.current_epoch + 1)

    def _note(self, trainer: pl.Trainer, epoch: int) -> None:
        if trainer.is_global_zero:
            self.run.status_file.note(epoch=epoch, n_epochs=trainer.max_epochs)


class ProgressLines(Callback):
    """Print a few progress lines per minute, for logs and for jobs that share a terminal.

    Parameters
    ----------
    label : what is being trained, printed at the start of each line.
    seconds : minimum time between two lines.
    """

    def __init__(self, label: str, seconds: float = SECONDS):
        self.label = label
        self.seconds = seconds
        self._next = 0.0
        self._losses: dict[str, float] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start = time.monotonic()
        self._first_step = trainer.global_step
        if trainer.current_epoch:
            print(
                f"[{self.label}] resumes after epoch {trainer.current_epoch}/{trainer.max_epochs}"
            )

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # read the metrics only here: doing so at each step would make the host wait for the GPU
        self._losses = {
            name.rsplit("/", 1)[1]: float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("val/") and name.endswith(SHOWN)
        }

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs, batch, batch_idx: int
    ) -> None:
        now = time.monotonic()
        n_steps = trainer.estimated_stepping_batches if now >= self._next else 0
        if now < self._next and trainer.global_step != n_steps:
            return
        self._next = now + self.seconds
        self._print(trainer, n_steps, now)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._print(trainer, trainer.estimated_stepping_batches, time.monotonic())

    def _print(self, trainer: pl.Trainer, n_steps: float, now: float) -> None:
        done = trainer.global_step / n_steps
        pace = (now - self._start) / max(1, trainer.global_step - self._first_step)
        left = pace * (n_steps - trainer.global_step)
        n_epochs = trainer.max_epochs
        print_progress(
            f"{self.label} epoch {min(trainer.current_epoch + 1, n_epochs)}/{n_epochs}",
            done,
            left if 0.02 < done < 1 else None,  # the first steps are not representative
            ", ".join(f"{name} {value:.3g}" for name, value in self._losses.items()),
        )
