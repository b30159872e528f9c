"""Prints the progress of a sweep while its jobs run.

The jobs' own output goes to log files in their folders.
"""

import contextlib
import functools
import os
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from lossyless.printing import forgiving
from lossyless.progress import clock
from utils.runs.experiment_status import LOG, format_stage, read_jobs, short_names

SECONDS = 10.0  # between checks of the jobs
WIDTH = 120  # maximum line length


@contextlib.contextmanager
def shown(sweep_dir: Path) -> Iterator[None]:
    """Print the progress of the jobs in a sweep's folder while the block runs."""
    over = threading.Event()
    # jobs in this process redirect file descriptor 1
    with forgiving(os.dup(1), encoding=sys.stdout.encoding) as out:
        thread = threading.Thread(target=_print_lines, args=(sweep_dir, over, out))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _print_lines(sweep_dir: Path, over: threading.Event, out: TextIO) -> None:
    """Print a line for each job that has ended, and a summary while jobs are running."""
    start = time.monotonic()
    reported: set[tuple] = set()
    is_over, shown_last = False, ""
    while not is_over:
        is_over = over.wait(SECONDS)
        jobs = read_jobs(sweep_dir)
        names = short_names([job["overrides"] for job in jobs])
        lines, running = [], []
        for job, own in zip(jobs, names, strict=True):
            name = own or f"job {job['num']}"
            if job["state"] == "running":
                running.append(f"{name} ({format_stage(job) or 'starting'})")
            if "finished" in job and (job["num"], job["finished"]) not in reported:
                reported.add((job["num"], job["finished"]))
                error = job.get("error", "").partition("\n")[0]
                ended = f"{job['state']}: {name} ({_time(job) or 'never began'})"
                lines.append(": ".join(filter(None, [ended, error])))
        if running and not is_over:
            n_done = sum(job["state"] == "done" for job in jobs)
            progress = f"{n_done} of {len(jobs)} jobs done; running: {', '.join(running)}"
            if progress != shown_last:
                lines.append(progress)
                shown_last = progress
        for line in lines:
            text = f"[{clock(time.monotonic() - start)}] {line}"
            print(textwrap.shorten(text, WIDTH, placeholder=" ..."), file=out, flush=True)


class WithoutOverrides:
    """Wraps stderr to drop the line in which Hydra repeats the overrides of a failed job."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        is_hydras = text.startswith("Error executing job with overrides")
        return len(text) if is_hydras else self._stream.write(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def logged(main: Callable[[DictConfig], object]) -> Callable[[DictConfig], object]:
    """Wrap `main` so that its output and traceback go to the job's log."""

    @functools.wraps(main)
    def task(cfg: DictConfig) -> object:
        with output_to(Path(HydraConfig.get().runtime.output_dir, LOG)):
            return main(cfg)

    return task


@contextlib.contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Append the output of this process and its children to a file."""
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(path.open("a", buffering=1, encoding="utf-8"))
        for descriptor in (1, 2):
            usual = os.dup(descriptor)
            stack.callback(os.close, usual)
            stack.callback(os.dup2, usual, descriptor)
            os.dup2(log.fileno(), descriptor)
        stack.enter_context(contextlib.redirect_stdout(log))
        stack.enter_context(contextlib.redirect_stderr(log))
        try:
            yield
        except BaseException:
            traceback.print_exc()
            raise


def _time(job: dict) -> str:
    """How long a job has run; empty if it has not started."""
    if "started" not in job:
        return ""
    end = datetime.fromisoformat(job["finished"]) if "finished" in job else datetime.now(UTC)
    return clock((end - datetime.fromisoformat(job["started"])).total_seconds())
