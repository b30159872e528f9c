"""What the jobs of a sweep say of themselves: `job.json`, in the output folder of each.

A launcher writes it when the job is queued, the job itself when it begins and ends. So a job that
failed or was lost is named whatever launched it.
"""

import contextlib
import os
import platform
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from utils.runs import scheduler, signals
from utils.runs.run import STATUS
from utils.runs.status_file import load_state, now, read_state, write_state

FILE, LOCK = "job.json", "job.lock"
# Forgotten when the job starts again.
OF_ONE_START = ("started", "finished", "signal", "error", "traceback")


class Trace:
    """The file in which one job says how it stands.

    Parameters
    ----------
    folder : of the job; None to leave no trace.
    num : of the job in its sweep.
    overrides : what sets it apart, "key=value".
    """

    def __init__(self, folder: Path | None, num: int = 0, overrides: list[str] | None = None):
        self._folder = folder
        self._content: dict[str, object] = {"num": num, "overrides": list(overrides or [])}
        self._writing = threading.Lock()  # a thread notes signals

    def queue(self, scheduler_job: str | None) -> None:
        """Note that the job waits for its turn, unless it has begun already."""
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(Timeout), FileLock(self._folder / LOCK, timeout=0):
            if not (self._folder / FILE).exists():
                place = _place() | {"scheduler_job": scheduler_job}
                self._write(state="queued", queued=now(), **place)

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the trace while the job runs: that it is alive, its signals, and how it ends."""
        if self._folder is None:
            yield
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self._folder / LOCK), signals.noted_by(self._note_signal):
            before = read_state(self._folder / FILE, self._folder / LOCK) or {}
            queued = {key: value for key, value in before.items() if key not in OF_ONE_START}
            self._content = queued | self._content
            self._write(state="running", started=now(), **_place())
            try:
                yield
            except BaseException as error:
                end = signals.end_of(error, noted=self._content.get("signal"))
                if end["state"] == "failed":
                    end["traceback"] = "".join(traceback.format_exception(error))
                self._write(finished=now(), **end)
                raise
            self._write(state="done", finished=now())

    def note(self, **facts: object) -> None:
        """Add facts, such as where the results are going to be."""
        if self._folder is not None:
            self._write(**facts)

    def _note_signal(self, words: str) -> None:
        self.note(signal=words)

    def _write(self, **facts: object) -> None:
        with self._writing:
            self._content |= facts
            write_state(self._folder / FILE, self._content)


def own_trace() -> Trace:
    """The trace of the Hydra job that this process runs; one that is not kept outside of Hydra."""
    if not HydraConfig.initialized() or scheduler.rank() != 0:
        return Trace(None)
    hydra_cfg = HydraConfig.get()
    if OmegaConf.is_missing(hydra_cfg.runtime, "output_dir"):
        return Trace(None)
    folder = Path(hydra_cfg.runtime.output_dir)
    return Trace(folder, hydra_cfg.job.get("num", 0), hydra_cfg.overrides.task)


def read_trace(folder: Path) -> dict:
    """How the job of a folder stands; its state, its number, its overrides, its error if any."""
    trace = read_state(folder / FILE, folder / LOCK)
    if trace is None:
        trace = {"state": "lost", "error": "ended before it began"}  # while importing torch
    return {"num": folder.name, "overrides": []} | trace


def mark_interrupted(sweep_dir: Path) -> None:
    """Note of jobs, and of their runs, that Ctrl-C on the launcher killed before they could."""
    for file in sweep_dir.glob(f"[0-9]*/{FILE}"):
        trace = read_state(file, file.with_name(LOCK))
        if trace is None or trace["state"] not in ("lost", "interrupted"):
            continue
        words = [trace["signal"]] if trace.get("signal") else []
        error = "; then ".join([*words, signals.CTRL_C])
        end = {"state": "interrupted", "error": error, "finished": now()}
        if trace["state"] == "lost":
            write_state(file, trace | end)
        for run in trace.get("runs", {}).values():
            status = load_state(Path(run, STATUS))
            is_left = status is not None and status["state"] == "running"
            if is_left and status["pid"] == trace.get("pid"):
                write_state(Path(run, STATUS), status | end)


def _place() -> dict[str, object]:
    """Where the process is that writes the trace."""
    return {
        "scheduler_job": scheduler.job_id(),
        "restarts": scheduler.n_restarts(),
        "host": platform.node(),
        "pid": os.getpid(),
    }
