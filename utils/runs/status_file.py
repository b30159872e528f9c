"""Status files: one JSON file per job (`job.json`) and per run (`status.json`).

    new -> queued -> running -> done | failed | interrupted

A process holds a lock while it works on a job or run. If the status is "running" but the lock is
free, it reads as "lost": the process died without recording its end.
"""

import contextlib
import errno
import json
import os
import platform
import signal
import traceback
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from utils.runs import signals
from utils.runs.files import is_locked, write_text

JOB, JOB_LOCK = "job.json", "job.lock"  # both in the job's output folder
RUN, RUN_LOCK = "status.json", "run.lock"  # in `Run.results` and in `Run.work`
LOST = (
    "its process died without recording its end: it was cancelled or killed, ran out of memory, or "
    "its machine went down"
)
STATES = ("running", "failed", "lost", "interrupted", "queued", "done")
UNDER_WAY = ("queued", "running")
CTRL_C = "Ctrl-C"
INTERRUPTIONS = (KeyboardInterrupt, SystemExit, signals.OutOfTime, signals.PeerLost)
# a full disk, an exhausted quota, a file size limit
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def now() -> str:
    """Current time in UTC, as text that sorts chronologically."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def load(path: Path) -> dict:
    """Read a status file, whether or not its process is alive.

    A missing file reads as {"state": "new"}. A damaged file, e.g. after a power cut or a partial
    copy, reads as "lost": the run then resumes from its last checkpoint or starts again.
    """
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict) or "state" not in content:
            raise ValueError("it has no state")
    except FileNotFoundError:
        return {"state": "new"}
    except ValueError as error:  # invalid JSON or UTF-8
        return {"state": "lost", "error": f"{path} cannot be read ({error})"}
    return content


def format_error(error: BaseException) -> str:
    """Format an error for status files and reports."""
    # Lightning turns KeyboardInterrupt into SystemExit
    cause = error.__context__ if type(error) is SystemExit else error
    if isinstance(cause, KeyboardInterrupt):
        return CTRL_C
    if isinstance(error, INTERRUPTIONS) and type(error) is not SystemExit:
        # Lightning gives no message when SIGTERM ends training
        return str(error) or str(signals.Terminated(128 + signal.SIGTERM))
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        _, mark, key = str(error).rpartition("full_key: ")
        reason = format_error(error.__cause__)
        return f"{key}: {reason}" if mark else reason
    return f"{type(error).__name__}: {error}"


def describe_end(error: BaseException) -> dict[str, str]:
    """State ("interrupted" or "failed") and error message of a job or run that ended with an error.

    A full disk counts as an interruption. After SIGTERM, so does any error, since worker
    processes also received the signal.
    """
    reason = format_error(error)
    if isinstance(error, INTERRUPTIONS) or getattr(error, "errno", None) in FULL_DISK:
        return {"state": "interrupted", "error": reason}
    if signals.is_terminated():
        return {"state": "interrupted", "error": f"{signals.TERMINATED}; then {reason}"}
    return {"state": "failed", "error": reason}


class StatusFile:
    """Status of a job or run: a JSON file, and a lock held by the process that works on it.

    Several processes (the ranks of a job) may use it concurrently.
    """

    def __init__(self, path: Path, lock: Path):
        self.path = path
        self.lock = lock

    def read(self) -> dict:
        """Read the status; the state is "new" without a file and "lost" if the process has died."""
        content = load(self.path)
        if content["state"] == "running" and not is_locked(self.lock):
            content = load(self.path)  # the process may have ended since the first read
            if content["state"] == "running":
                content |= {"state": "lost", "error": LOST}
        return content

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock; wait if another process holds it."""
        self.lock.parent.mkdir(parents=True, exist_ok=True)
        if is_locked(self.lock):
            print(f"Waiting for another process that is working on {self.path.parent}")
        with FileLock(self.lock):
            yield

    def start(self, **facts: object) -> None:
        """Set the status to "running", replacing that of an earlier attempt."""
        with self._writing():
            self._replace(
                facts
                | {
                    "state": "running",
                    "started": now(),
                    "scheduler_job": signals.job_id(),
                    "restarts": signals.n_restarts(),
                    "host": platform.node(),
                    "pid": os.getpid(),
                }
            )

    def write(self, **facts: object) -> None:
        """Add facts to the status."""
        with self._writing():
            self._replace(load(self.path) | facts)

    def note(self, **facts: object) -> None:
        """Add facts to the status if it is "running"; a no-op otherwise."""
        with self._writing():
            if (status := load(self.path))["state"] == "running":
                self._replace(status | facts)

    def record_end(self, error: BaseException) -> None:
        """Record that an error ended the job or run: its state becomes "failed" or "interrupted".

        Only the first error is kept: errors on other ranks are consequences of it.
        """
        trace = "".join(traceback.format_exception(error))
        self.note(**describe_end(error), finished=now(), traceback=trace)

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Record an error that ends the block; recording "done" is up to the caller."""
        try:
            yield
        except BaseException as error:
            self.record_end(error)
            raise

    @contextlib.contextmanager
    def running(self, **facts: object) -> Iterator[None]:
        """Hold the lock and record the start and end of the block."""
        with self.locked():
            self.start(**facts)
            with self.recording():
                yield
            self.write(state="done", finished=now())

    def _writing(self) -> FileLock:
        """Lock to hold while reading and replacing the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.lock.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.lock.with_suffix(".write_lock"))

    def _replace(self, content: dict) -> None:
        write_text(self.path, json.dumps(content, indent=2) + "\n")


# --- jobs of a sweep


def job_file(folder: Path) -> StatusFile:
    """Status file of the job with this output folder."""
    return StatusFile(folder / JOB, folder / JOB_LOCK)


def read_job(folder: Path) -> dict:
    """Read the status of a job; it has at least the keys `state`, `num` and `overrides`."""
    status = job_file(folder).read()
    if status["state"] == "new":  # its process died, e.g. while importing torch
        status = {"state": "lost", "error": "its process ended before the job started"}
    return {"num": folder.name, "overrides": []} | status


def queue_job(folder: Path, num: int, overrides: Sequence[str], scheduler_job: str | None) -> None:
    """Write the status of a queued job of a sweep, unless the job has already started.

    `scheduler_job` is the scheduler's id for the job, such as "87_3", if known.
    """
    file = job_file(folder)
    with file._writing():
        if not file.path.exists():
            place = {"host": platform.node(), "pid": os.getpid(), "scheduler_job": scheduler_job}
            job = {"num": num, "overrides": list(overrides), "state": "queued", "queued": now()}
            file._replace(job | place)


def own_job() -> StatusFile | None:
    """Status file of the Hydra job that this process runs; None outside Hydra."""
    if not HydraConfig.initialized() or OmegaConf.is_missing(
        HydraConfig.get().runtime, "output_dir"
    ):
        return None
    return job_file(Path(HydraConfig.get().runtime.output_dir))


@contextlib.contextmanager
def recorded_job() -> Iterator[StatusFile | None]:
    """Record the start and end of the Hydra job that this process runs; yield its status file.

    If the job has several processes, only rank 0 records the start and success, but any of them
    may record its error.
    """
    file = own_job()
    if file is None:
        yield None
        return
    if signals.rank() != 0:
        with file.recording():
            yield file
        return
    hydra_cfg = HydraConfig.get()
    facts = {key: value for key, value in load(file.path).items() if key == "queued"}
    facts |= {"num": hydra_cfg.job.get("num", 0), "overrides": list(hydra_cfg.overrides.task)}
    with file.running(**facts):
        yield file
