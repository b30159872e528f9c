"""Trials of a fault, in child processes that isolate hangs, crashes and heavy memory use."""

import multiprocessing
import platform
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from utils.runs.provenance import code_version

ROOT = Path(__file__).parents[2]
TIMEOUT = 1200.0  # seconds until a trial counts as hung; the machine may be busy
FORK = multiprocessing.get_context("fork")  # children inherit all imports
# Acceptable: the result is right, an error says what is wrong, or the result is wrong but the
# documentation warns about it. Bad: a wrong result goes unnoticed, the trial does not end, or it
# ends in any other way.
SURVIVED, DETECTED, KNOWN_LIMIT = "survived", "detected", "known_limit"
BAD = UNDETECTED, HUNG, UNEXPLAINED = "undetected", "hung", "unexplained"
VERDICTS = (*BAD, KNOWN_LIMIT, DETECTED, SURVIVED)


@dataclass(frozen=True)
class Outcome:
    """Verdict, note (such as an error), duration, and growth of the peak memory in MiB."""

    verdict: str
    note: str = ""
    seconds: float = 0.0
    memory: float = 0.0


@dataclass(frozen=True)
class Trials:
    """Trials of one fault on one target: `run(case)` for each case, in a child process.

    `max_memory` is in MiB. If `is_limited`, undetected faults are a known limitation.
    """

    fault: str
    target: str
    run: Callable[[Any], Outcome]
    cases: Sequence[object]
    max_memory: float = float("inf")
    is_limited: bool = False

    def outcomes(self, timeout: float = TIMEOUT) -> list[Outcome]:
        """Run all cases and return their outcomes; a child that hangs or dies is replaced."""
        found: list[Outcome] = []
        while rest := self.cases[len(found) :]:
            receiver, sender = FORK.Pipe(duplex=False)
            child = FORK.Process(target=self._run_all, args=(rest, sender))
            child.start()
            sender.close()
            try:
                for case in rest:
                    if not receiver.poll(timeout):
                        found.append(Outcome(HUNG, f"{case}: took over {timeout:.0f} s", timeout))
                        break
                    found.append(receiver.recv())
            except EOFError:
                child.join()
                found.append(Outcome(UNEXPLAINED, f"{case}: process ended with {child.exitcode}"))
            child.kill()
            child.join()
        return found

    def _run_all(self, cases: Sequence[object], sender) -> None:
        torch.set_num_threads(1)
        before = _peak_memory()
        for case in cases:
            start = time.monotonic()
            found = self.run(case)
            growth = _peak_memory() - before
            if growth > self.max_memory:
                found = Outcome(UNEXPLAINED, "used too much memory")
            if self.is_limited and found.verdict == UNDETECTED:
                found = replace(found, verdict=KNOWN_LIMIT)
            note = f"{case}: {found.note}" if found.verdict in BAD else found.note
            sender.send(Outcome(found.verdict, note, time.monotonic() - start, growth))


def _peak_memory() -> float:
    """Peak memory of this process so far, in MiB."""
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


Row = dict[str, object]  # a row of the CSV file: all trials of one fault on one target


def summarise(trials: Trials, outcomes: Sequence[Outcome], seed: int) -> Row:
    """Print a summary of trials and return it as a row; `worst` is the worst outcome's note."""
    counts = Counter(found.verdict for found in outcomes)
    worst = min(outcomes, key=lambda found: VERDICTS.index(found.verdict))
    found = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
    note = " ".join(worst.note.split())[:300]
    shown = f": {note}" * (worst.verdict in BAD)
    print(f"  {trials.fault}, {trials.target}: {found}{shown}", flush=True)
    return {
        "fault": trials.fault,
        "target": trials.target,
        "tried": len(outcomes),
        **{verdict: counts[verdict] for verdict in reversed(VERDICTS)},
        "seconds": round(max(found.seconds for found in outcomes), 2),
        "memory_mib": round(max(found.memory for found in outcomes), 1),
        "worst": note,
        "seed": seed,
        "code": code_version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def is_bad(row: Row) -> bool:
    return any(row[verdict] for verdict in BAD)


def judge(read: Callable[[], bool], expected: tuple[type[Exception], ...], name: str) -> Outcome:
    """Call `read`, which returns whether what it read is right, and judge the outcome.

    An error counts as detection if its type is expected and its message is one line that contains
    `name`; if no name is given, as for scikit-learn's errors, the message may be longer.
    """
    try:
        return Outcome(SURVIVED) if read() else Outcome(UNDETECTED, "the result is wrong")
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        is_explained = isinstance(error, expected) and name in text and not (name and "\n" in text)
        return Outcome(DETECTED if is_explained else UNEXPLAINED, text)


def judge_status(status: int, said: str, is_right: Callable[[], bool], name: str = "") -> Outcome:
    """Verdict on a command, which must succeed or report what is wrong with `name`."""
    if status == 0:
        return Outcome(SURVIVED if is_right() else UNDETECTED, "exit status 0")
    is_explained = status in (1, 2, 3) and "Traceback" not in said and name in said
    note = f"exit status {status}: {said[-250:]}"
    return Outcome(DETECTED if is_explained else UNEXPLAINED, note)
