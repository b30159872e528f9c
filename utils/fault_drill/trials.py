"""Trials of a fault in child processes, whose hangs, deaths and memory do not affect the drill."""

import csv
import multiprocessing
import os
import platform
import runpy
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from utils.runs.run import code_version

ROOT = Path(__file__).parents[2]
TIMEOUT = 300.0  # seconds until a trial counts as hung; the machine may be busy
# The result is right, or an error says what is wrong. What must not happen: the result is wrong,
# the trial does not end, or it ends in any other way.
SURVIVED, DETECTED = "survived", "detected"
BAD = UNDETECTED, HUNG, UNEXPLAINED = "undetected", "hung", "unexplained"
VERDICTS = (*BAD, DETECTED, SURVIVED)
PIPE_SIZE = 1 << 20
FORK = multiprocessing.get_context("fork")  # children need no imports


@dataclass(frozen=True)
class Trial:
    """Verdict and details, such as the error; duration; growth of the peak memory in MiB."""

    verdict: str
    note: str = ""
    seconds: float = 0.0
    memory: float = 0.0


Row = dict[str, object]  # all trials of one fault on one target, as in the CSV file


def summarise(fault: str, target: str, trials: Sequence[Trial], seed: int) -> Row:
    """The row of some trials, which is also printed; `worst` is the note of the worst trial."""
    counts = Counter(trial.verdict for trial in trials)
    worst = min(trials, key=lambda trial: VERDICTS.index(trial.verdict))
    found = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
    note = " ".join(worst.note.split())[:300]
    print(f"  {fault}, {target}: {found}{f': {note}' * (worst.verdict in BAD)}", flush=True)
    return {
        "fault": fault,
        "target": target,
        "tried": len(trials),
        **{verdict: counts[verdict] for verdict in reversed(VERDICTS)},
        "seconds": round(max(trial.seconds for trial in trials), 2),
        "memory_mib": round(max(trial.memory for trial in trials), 1),
        "worst": note,
        "seed": seed,
        "code": code_version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def is_bad(row: Row) -> bool:
    return any(row[verdict] for verdict in BAD)


def write(path: Path, rows: Sequence[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def judge(read: Callable[[], bool], expected: tuple[type[Exception], ...], name: str) -> Trial:
    """Verdict on `read`, which returns whether what it read is right.

    An error counts as detection if it is of an expected type, and is one line that contains
    `name`; scikit-learn's errors, without a name, may be longer.
    """
    try:
        return Trial(SURVIVED) if read() else Trial(UNDETECTED, "the result is wrong")
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        is_explained = isinstance(error, expected) and name in text and not (name and "\n" in text)
        return Trial(DETECTED if is_explained else UNEXPLAINED, text)


def timed(trial: Callable[..., Trial], *arguments: object) -> Trial:
    """`trial(*arguments)` in this process, with its duration."""
    start = time.monotonic()
    found = trial(*arguments)
    return replace(found, seconds=time.monotonic() - start)


def attempt_all(
    trial: Callable[..., Trial],
    cases: Sequence[object],
    *,
    timeout: float = TIMEOUT,
    max_memory: float = float("inf"),
) -> list[Trial]:
    """`trial(case)` for all cases, in one child process; a hung or dead child is replaced."""
    trials: list[Trial] = []
    while rest := cases[len(trials) :]:
        receiver, sender = FORK.Pipe(duplex=False)
        child = FORK.Process(target=_child, args=(trial, rest, sender, max_memory))
        child.start()
        sender.close()
        try:
            for case in rest:
                if not receiver.poll(timeout):
                    trials.append(Trial(HUNG, f"{case}: took over {timeout:.0f} s", timeout))
                    break
                trials.append(receiver.recv())
        except EOFError:
            child.join()
            trials.append(Trial(UNEXPLAINED, f"{case}: its process ended with {child.exitcode}"))
        child.kill()
        child.join()
    return trials


def _child(trial: Callable[..., Trial], cases: Sequence[object], sender, max_memory) -> None:
    import resource  # not on Windows

    torch.set_num_threads(1)
    before = None
    for case in cases:
        found = timed(trial, case)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        before = peak if before is None else before  # after the first trial's lazy imports
        verdict, note = found.verdict, found.note
        if peak - before > max_memory:
            verdict, note = UNEXPLAINED, "took too much memory"
        note = f"{case}: {note}" if verdict in BAD else note
        sender.send(Trial(verdict, note, found.seconds, peak - before))


def command(
    *arguments: object, timeout: float = TIMEOUT, **options: object
) -> subprocess.CompletedProcess:
    """Run `python *arguments` in the project's folder; exit status 124 after a timeout."""
    line = [sys.executable, *map(str, arguments)]
    defaults = {"cwd": ROOT, "stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    try:
        return subprocess.run(line, timeout=timeout, **(defaults | options))
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(line, 124, "", "")


def judge_command(
    done: subprocess.CompletedProcess, is_right: Callable[[], bool], name: str = ""
) -> Trial:
    """Verdict on a command that should succeed, or fail with a message that contains `name`."""
    if done.returncode == 124:
        return Trial(HUNG, " ".join(done.args[1:4]))
    if done.returncode == 0:
        return Trial(SURVIVED if is_right() else UNDETECTED, "exit status 0")
    said = f"{done.stdout or ''}\n{done.stderr or ''}".strip()
    is_explained = done.returncode in (1, 2, 3) and "Traceback" not in said and name in said
    note = f"exit status {done.returncode}: {said[-250:]}"
    return Trial(DETECTED if is_explained else UNEXPLAINED, note)


def main_program(
    arguments: Sequence[str],
    is_right: Callable[[], bool] = lambda: True,
    name: str = "",
    prepare: Callable[[], object] = lambda: None,
) -> Trial:
    """Verdict on `python main.py *arguments` in this process, after `prepare()`."""
    import fcntl  # not on Windows

    reader, writer = os.pipe()  # unlike files, not limited on a full disk
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    os.dup2(writer, 1)
    os.dup2(writer, 2)
    sys.argv = ["main.py", *arguments]
    code: object = 0
    try:
        prepare()
        runpy.run_path(str(ROOT / "main.py"), run_name="__main__")
    except SystemExit as error:
        code = error.code
    except BaseException as error:
        code = f"Traceback: {error!r}"
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(writer, b" ")
    said = os.read(reader, PIPE_SIZE).decode()
    if isinstance(code, str):
        code, said = 1, code
    done = subprocess.CompletedProcess(sys.argv, code or 0, said, "")
    return judge_command(done, is_right, name)
