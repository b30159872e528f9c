"""Where a run lives, and how it stands: its folders, lock, status and results.

A run is one stage under one config; see `utils.runs.identity`.
"""

import contextlib
import csv
import functools
import os
import platform
import subprocess
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from utils.runs import scheduler, signals
from utils.runs.files import write_text
from utils.runs.identity import run_folder, run_hash
from utils.runs.status_file import load_state, now, read_state, write_state

STATUS = "status.json"  # in the folder `results`
LOCK = "run.lock"  # in the folder `work`
_writing = threading.Lock()  # of status files, which a thread notes signals in


@dataclass(frozen=True)
class Run:
    """One stage under one config.

    Attributes
    ----------
    stage : name in `STAGES`.
    cfg : the resolved config of the whole job.
    results : folder of what people look at: CSV, config, status, figures.
    work : folder of what programs need: checkpoints and compressed data.
    """

    stage: str
    cfg: DictConfig
    results: Path
    work: Path

    @property
    def id(self) -> str:
        return self.results.name.removeprefix("run_")

    @property
    def seed(self) -> int:
        """Of what is random in this stage."""
        has_own = self.stage == "predictor" and self.cfg.seed_pred is not None
        return self.cfg.seed_pred if has_own else self.cfg.seed

    @property
    def csv(self) -> Path:
        return self.results / f"results_{self.stage}.csv"

    @property
    def status_file(self) -> Path:
        return self.results / STATUS

    def status(self) -> dict:
        """What the run says of itself; `{"state": "new"}` before it ever started.

        States: new, running (or lost, see `read_status`), interrupted, failed, done.
        """
        status = load_state(self.status_file)
        if status is None or (status["state"] == "done" and not self.csv.is_file()):
            return {"state": "new"}
        return status

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Wait until no other process works on this run, then keep it to ourselves.

        Its status takes note of a scheduler's SIGTERM meanwhile.
        """
        self.work.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.work / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(
                f"Waiting for another process that works on the same {self.stage}: {self.results}"
            )
            lock.acquire()
        try:
            with signals.noted_by(lambda words: self.note(signal=words)):
                yield
        finally:
            lock.release()

    def start(self, upstream: str | None) -> None:
        """Note that the run is under way, its config, and which results it starts from.

        Parameters
        ----------
        upstream : what tells one making of its inputs from another: when the stage before it was
            finished, or the digest of the encoder that it starts from; None if there is neither.
        """
        self.results.mkdir(parents=True, exist_ok=True)
        write_text(self.results / "config.yaml", OmegaConf.to_yaml(self.cfg, sort_keys=True))
        with _writing:
            self._write_status(
                state="running",
                started=now(),
                upstream=upstream,
                scheduler_job=scheduler.job_id(),
                restarts=scheduler.n_restarts(),
                pid=os.getpid(),
                host=platform.node(),
                code=code_version(),
            )

    def note(self, **facts: object) -> None:
        """Add facts to the status of the run while it is under way, such as its epoch."""
        with _writing:
            status = self.status()
            if status["state"] == "running":
                self._write_status(**status | facts)

    def finish(self, metrics: dict[str, float]) -> None:
        """Write the results; the run is done once they are on disk."""
        rows = [list(metrics), [repr(float(value)) for value in metrics.values()]]
        try:
            write_text(self.csv, "".join(",".join(row) + "\n" for row in rows))
        except OSError as error:
            self.stop(error)
            raise
        with _writing:
            self._write_status(**self.status() | {"state": "done", "finished": now()})

    def stop(self, error: BaseException) -> None:
        """Note why the run ended without results."""
        with _writing:
            status = self.status()
            end = signals.end_of(error, noted=status.get("signal"))
            end["traceback"] = "".join(traceback.format_exception(error))
            self._write_status(**status | {"finished": now()} | end)

    def metrics(self) -> dict[str, float]:
        """The results that are on disk."""
        with self.csv.open() as file:
            row = next(csv.DictReader(file))
        return {name: float(value) for name, value in row.items()}

    def _write_status(self, **status: object) -> None:
        write_state(self.status_file, {"stage": self.stage} | status)


def find_run(cfg: DictConfig, stage: str) -> Run:
    """The run of a stage under `cfg`, whether it exists on disk or not."""
    folder = run_folder(cfg, stage) / f"run_{run_hash(cfg, stage)}"
    return Run(stage, cfg, Path(cfg.paths.results) / folder, Path(cfg.paths.pretrained) / folder)


def read_status(results: Path, work: Path) -> dict | None:
    """How the run with these folders stands, as others see it; None if there is none.

    States: running (a process works on it), lost, interrupted, failed, done.
    """
    status = read_state(results / STATUS, work / LOCK)
    return None if status is None else {"stage": _stage_of(results)} | status


def _stage_of(results: Path) -> str:
    """The stage of a run, from its folder; see `utils.runs.identity.path_parts`."""
    last_of = {"addpred": "predictor", "datapred": "communication"}
    return last_of.get(results.parent.name.partition("_")[0], "featurizer")


@functools.cache
def code_version() -> str | None:
    """Commit of this code, with "-dirty" if it was changed since; None outside of git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
