"""Folders, lock, status, results and checkpoints of a run.

A run is one stage under one config; see `utils.runs.identity`.
"""

import contextlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from lossyless.weights import WeightsError, read_checkpoint
from utils.runs.files import write_bytes, write_text
from utils.runs.identity import run_folder, run_hash
from utils.runs.provenance import code_version
from utils.runs.saved_runs import read_metrics
from utils.runs.status_file import RUN, RUN_LOCK, StatusFile, now

BEST, LAST = "best.ckpt", "last.ckpt"  # checkpoints: the best epoch's, and the one for resuming


@dataclass(frozen=True)
class Run:
    """One stage under one config."""

    stage: str  # name in `STAGES`
    cfg: DictConfig  # resolved config of the whole job
    results: Path  # folder for the CSV file, config, status and figures
    work: Path  # folder for checkpoints and compressed data

    @property
    def id(self) -> str:
        return self.results.name.removeprefix("run_")

    @property
    def seed(self) -> int:
        """Seed of this stage."""
        has_own = self.stage == "predictor" and self.cfg.seed_pred is not None
        return self.cfg.seed_pred if has_own else self.cfg.seed

    @property
    def csv(self) -> Path:
        return self.results / f"results_{self.stage}.csv"

    @property
    def status_file(self) -> StatusFile:
        return StatusFile(self.results / RUN, self.work / RUN_LOCK)

    def status(self) -> dict:
        """Status of the run; {"state": "new"} if it never started or its results were deleted."""
        status = self.status_file.read()
        return {"state": "new"} if status["state"] == "done" and not self.csv.is_file() else status

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Hold the run's lock; wait if another process is working on the run."""
        return self.status_file.locked()

    def start(self, upstream: str | None) -> None:
        """Write the config and set the status to "running".

        `upstream` is the version of the inputs: the time at which the previous stage finished, or
        the digest of the imported encoder, or None if there is neither.
        """
        self.results.mkdir(parents=True, exist_ok=True)
        write_text(self.results / "config.yaml", OmegaConf.to_yaml(self.cfg, sort_keys=True))
        self.status_file.start(stage=self.stage, upstream=upstream, code=code_version())

    def finish(self, metrics: dict[str, float]) -> None:
        """Write the results, then set the status to "done"."""
        rows = [list(metrics), [repr(float(value)) for value in metrics.values()]]
        write_text(self.csv, "".join(",".join(row) + "\n" for row in rows))
        self.status_file.write(state="done", finished=now())

    def metrics(self) -> dict[str, float]:
        """Read the results from disk."""
        return read_metrics(self.csv)

    def load_best(self, module: nn.Module) -> None:
        """Load the weights of the best epoch, or the state of a fitted codec.

        Raises FileNotFoundError if the checkpoint is missing, and WeightsError if it is damaged.
        """
        path = self.work / BEST
        advice = f"restore it, or delete the folder {self.results} to train again"
        if not path.is_file():
            raise FileNotFoundError(
                f"the {self.stage} in {self.results} is done, but its checkpoint {path} is "
                f"missing: {advice}"
            )
        try:
            state = read_checkpoint(path)["state_dict"]
        except WeightsError as error:
            raise WeightsError(f"{error}: {advice}") from error
        module.load_state_dict(state)

    def checkpoint_to_resume(self) -> Path | None:
        """The last checkpoint, or the best one if the last is damaged or missing.

        If the best one is unusable, sets both files aside and returns None, so that training starts
        over: all later epochs might be worse than the lost one. Reports damaged files on stderr.
        """
        last, best = (self._intact(name) for name in (LAST, BEST))
        if best is not None:
            return last or best
        if last is not None:
            reason = f"{self.work / BEST} is missing or damaged"
            print(f"[{self.stage}] training from scratch: {reason}", file=sys.stderr)
        self.set_checkpoints_aside()
        return None

    def _intact(self, name: str) -> Path | None:
        path = self.work / name
        try:
            if path.is_file():
                read_checkpoint(path)
                return path
        except WeightsError as error:
            if isinstance(error.__cause__, OSError):  # an I/O error, not a damaged file
                raise
            print(f"[{self.stage}] not resuming from {name}: {error}", file=sys.stderr)
        return None

    def set_checkpoints_aside(self) -> None:
        """Rename the checkpoints to `failed_*.ckpt`, so that the run starts from scratch."""
        for name in (BEST, LAST):
            if (self.work / name).is_file():
                (self.work / name).replace(self.work / f"failed_{name}")


def write_checkpoint(content: dict, path: Path) -> None:
    """Write a file with torch.save; replace an existing file only once the new one is complete."""
    buffer = io.BytesIO()  # torch.save hides disk errors
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue())


def find_run(cfg: DictConfig, stage: str) -> Run:
    """The run of a stage under `cfg`, whether or not it exists on disk."""
    folder = run_folder(cfg, stage) / f"run_{run_hash(cfg, stage)}"
    return Run(stage, cfg, Path(cfg.paths.results) / folder, Path(cfg.paths.pretrained) / folder)
