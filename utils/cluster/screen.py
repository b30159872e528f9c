"""Display of a sweep while its jobs run: a live table in a terminal, lines of text elsewhere.

The output of the jobs goes to log files in their folders.
"""

import contextlib
import functools
import os
import sys
import textwrap
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lossyless.progress import clock
from utils.configs.composing import NO_TEXT, PLAIN
from utils.runs.experiment_status import LOG, distinct_overrides, format_stage, read_jobs

SECONDS = 10.0  # between lines
WIDTH = 100  # of a line
TAIL = 2000  # bytes read at the end of a log
# States of jobs; a small terminal shows the first ones.
STYLES = {
    "running": "cyan",
    "starting": "cyan",  # importing torch
    "failed": "red",
    "lost": "red",
    "interrupted": "yellow",
    "done": "green",
    "queued": "dim",
}


class Screen:
    """Display of the jobs of a sweep, from their status files.

    Parameters
    ----------
    sweep_dir : folder with a folder per job.
    planned : overrides of each job; empty for a search.
    """

    def __init__(self, sweep_dir: Path, planned: Sequence[list[str]] = ()):
        self._sweep_dir = sweep_dir
        self._planned = planned
        self._start = time.monotonic()
        self._over = threading.Event()

    @contextlib.contextmanager
    def shown(self, *, as_table: bool) -> Iterator[None]:
        """Show the jobs inside the block: as a table in a terminal, else as lines."""
        with os.fdopen(os.dup(1), "w") as out:  # a job in this process redirects descriptor 1
            console = Console(file=out)
            if as_table and sys.stdout.isatty() and not console.is_dumb_terminal:
                display = Live(
                    console=console,
                    get_renderable=lambda: self._table(console.height),
                    refresh_per_second=1,
                )
            else:
                display = self._printing(out)
            with display:
                try:
                    yield
                finally:
                    self._over.set()

    def _jobs(self) -> list[dict]:
        jobs = {int(job["num"]): job for job in read_jobs(self._sweep_dir)}
        for num, overrides in enumerate(self._planned):
            jobs[num] = jobs.get(num, {"num": num, "state": "queued"}) | {"overrides": overrides}
        found = [jobs[num] for num in sorted(jobs)]
        for job, apart in zip(found, distinct_overrides(found), strict=True):
            job["name"] = "/".join(map(_short, apart)) or f"job {job['num']}"
            has_started = not {"queued", "started", "finished"}.isdisjoint(job)
            if job["state"] == "lost" and not has_started and not self._over.is_set():
                job |= {"state": "starting", "error": ""}
        return found

    def _summary(self, jobs: list[dict]) -> str:
        n = Counter(job["state"] for job in jobs)
        others = [f"{n[state]} {state}" for state in STYLES if n[state] and state != "done"]
        return ", ".join([f"{n['done']} of {len(jobs)} jobs done", *others])

    def _table(self, height: int) -> Table:
        jobs = self._jobs()
        title = f"{self._summary(jobs)} ({self._elapsed()})"
        table = Table(title=title, title_style="bold", title_justify="left", box=SIMPLE_HEAD)
        table.add_column("job", no_wrap=True, max_width=40)
        table.add_column("state", no_wrap=True)
        table.add_column("time", no_wrap=True)
        table.add_column("last line of its log")
        if len(jobs) > (n_rows := max(1, height - 6)):
            order = list(STYLES)
            jobs = sorted(jobs, key=lambda job: order.index(job["state"]))
        for job in jobs[:n_rows]:
            cells = (job["name"], job["state"], _time(job), self._last_words(job))
            texts = (Text(cell, no_wrap=True, overflow="ellipsis") for cell in cells)
            table.add_row(*texts, style=STYLES[job["state"]])
        return table

    @contextlib.contextmanager
    def _printing(self, out: TextIO) -> Iterator[None]:
        thread = threading.Thread(target=self._print_lines, args=(out,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            thread.join()

    def _print_lines(self, out: TextIO) -> None:
        """Print a line for each job that has ended, and a summary while jobs run."""
        ended: set[tuple] = set()
        before = ""
        is_over = False
        while not is_over:
            is_over, jobs = self._over.wait(SECONDS if before else 0), self._jobs()
            now = [
                f"{job['name']} {format_stage(job)}" for job in jobs if job["state"] == "running"
            ]
            ends = {(job["num"], job["finished"]): job for job in jobs if "finished" in job}
            lines = [self._end(job) for key, job in ends.items() if key not in ended]
            ended |= set(ends)
            summary = self._summary(jobs)
            if now:
                summary = f"{summary.partition(', ')[0]}, {len(now)} running: {', '.join(now)}"
            if not is_over and (now or summary != before):
                lines.append(summary)
                before = summary
            for line in lines:
                text = textwrap.shorten(f"[{self._elapsed()}] {line}", WIDTH, placeholder=" ...")
                print(text, file=out, flush=True)

    def _end(self, job: dict) -> str:
        parts = [
            job["state"],
            f"{job['name']} ({_time(job) or 'never began'})",
            self._last_words(job),
        ]
        return ": ".join(filter(None, parts))

    def _last_words(self, job: dict) -> str:
        """Its error, or the last line of its log."""
        said = job.get("error") or _last_line(self._sweep_dir / str(job["num"]) / LOG)
        return said.partition("\n")[0]

    def _elapsed(self) -> str:
        return clock(time.monotonic() - self._start)


class WithoutOverrides:
    """stderr without the line in which Hydra repeats the overrides of a failed job."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        is_hydras = text.startswith("Error executing job with overrides")
        return len(text) if is_hydras else self._stream.write(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def logged(main: Callable[[DictConfig], object]) -> Callable[[DictConfig], object]:
    """`main` with its output and traceback in the log of the job."""

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


def _short(override: str) -> str:
    """An override in a word: "VIC", or "seed=1" if the value alone is ambiguous."""
    key, _, value = override.partition("=")
    if PLAIN.fullmatch(value) and value not in NO_TEXT:
        return value
    with contextlib.suppress(ValueError):
        value = f"{float(value):.4g}"
    return f"{key.replace('@', '.').rpartition('.')[2].lstrip('+')}={value}"


def _time(job: dict) -> str:
    """Running time of a job."""
    if "started" not in job:
        return ""
    end = datetime.fromisoformat(job["finished"]) if "finished" in job else datetime.now(UTC)
    return clock((end - datetime.fromisoformat(job["started"])).total_seconds())


def _last_line(log: Path) -> str:
    """The last line of a log that is not indented: source lines of warnings are."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL))
            lines = file.read().decode(errors="replace").replace("\r", "\n").splitlines()
    except FileNotFoundError:
        return ""
    return next((line for line in reversed(lines) if line.strip() and line[0] != " "), "")
