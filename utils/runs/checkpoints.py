"""The checkpoints of a run: the best epoch, and the last one to resume from."""

from pathlib import Path

from torch import nn

from lossyless.state_dicts import read_checkpoint
from utils.runs.run import Run

BEST, LAST = "best.ckpt", "last.ckpt"


def load_best(module: nn.Module, run: Run) -> None:
    """Load the weights of the best epoch of a run, or what a codec learnt in it."""
    path = run.work / BEST
    if not path.is_file():
        raise FileNotFoundError(
            f"the {run.stage} of {run.results} is done, but its checkpoint {path} is missing: "
            f"restore it, or delete the folder {run.results} to train again"
        )
    module.load_state_dict(read_checkpoint(path)["state_dict"])


def set_aside(work: Path) -> None:
    """Start without the checkpoints of a failed run; they stay on disk as `failed_*.ckpt`."""
    for name in (BEST, LAST):
        if (work / name).is_file():
            (work / name).replace(work / f"failed_{name}")
