"""The signals by which a scheduler tells a job that it has to go, and what becomes of it.

USR2 comes some time before a time limit or a preemption. submitit answers it: it stores the job
anew, puts it back into the queue and ends the process, or gives up after `max_num_timeout` limits.
SIGTERM comes a moment before SIGKILL. It must not end the process: Slurm would count that as a
failure, and would not start the job again.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from hydra.errors import InstantiationException

from utils.runs import scheduler

CTRL_C = "Ctrl-C"
TERMINATED = "received SIGTERM: cancelled, preempted, or its node goes down"

_listeners: list[Callable[[str], None]] = []


class Requeued(SystemExit):
    """The process ends, and its job is back in the queue."""

    def __str__(self) -> str:
        name = scheduler_signal().name.removeprefix("SIG")
        return f"preempted or out of time (signal {name}): requeued"


class OutOfTime(RuntimeError):
    """The job's time is over, and it is not put back into the queue."""


INTERRUPTIONS = (KeyboardInterrupt, SystemExit, OutOfTime)


def in_words(error: BaseException) -> str:
    """Why something ended, for those who look at it later."""
    # Lightning ends the process that is told to stop while it trains
    cause = error.__context__ if type(error) is SystemExit else error
    if isinstance(cause, KeyboardInterrupt):
        return CTRL_C
    if isinstance(error, (Requeued, OutOfTime)):
        return str(error)
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        _, mark, key = str(error).rpartition("full_key: ")
        return f"{key}: {in_words(error.__cause__)}" if mark else in_words(error.__cause__)
    return f"{type(error).__name__}: {error}"


def end_of(error: BaseException, noted: str | None) -> dict[str, str]:
    """State and error of what an error ended.

    Parameters
    ----------
    noted : words of a SIGTERM that came before: it has reached worker processes, too.
    """
    words = in_words(error)
    if isinstance(error, INTERRUPTIONS):
        return {"state": "interrupted", "error": words}
    if noted is not None:
        return {"state": "interrupted", "error": f"{noted}; then {words}"}
    return {"state": "failed", "error": words}


def scheduler_signal() -> signal.Signals:
    """What announces time limits and preemptions: USR2, unless submitit was told otherwise."""
    from submitit import JobEnvironment

    return signal.Signals[f"SIG{JobEnvironment.USR_SIG}"]


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Answer the scheduler's signals meanwhile; nothing outside of a scheduler's job."""
    if scheduler.job_id() is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = {number: signal.getsignal(number) for number in (signal.SIGTERM, scheduler_signal())}
    listen()
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


def listen() -> None:
    """Take over the signals of a scheduler's job, again if a library took them in the meantime.

    Lightning does so when a training begins, and would end it after a SIGTERM.
    """
    if scheduler.job_id() is None or threading.current_thread() is not threading.main_thread():
        return
    signal.signal(signal.SIGTERM, _Termination())
    handler = signal.getsignal(scheduler_signal())
    if callable(handler) and not isinstance(handler, _OnlyOnce):
        signal.signal(scheduler_signal(), _OnlyOnce(handler))


@contextlib.contextmanager
def noted_by(note: Callable[[str], None]) -> Iterator[None]:
    """Call `note` with words for each SIGTERM that a scheduler sends meanwhile."""
    _listeners.append(note)
    try:
        yield
    finally:
        _listeners.remove(note)


class _OnlyOnce:
    """submitit's answer to the first signal; a second one would break into the answer.

    Processes that this one forked got the handler too, and the signal goes to all of a job.
    """

    def __init__(self, answer: Callable[[int, FrameType | None], object]):
        self._answer = answer
        self._process = os.getpid()
        self._is_answered = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        from submitit.core.utils import UncompletedJobError

        if self._is_answered or os.getpid() != self._process:
            return
        self._is_answered = True
        try:
            self._answer(number, frame)
        except SystemExit as error:
            raise Requeued(error.code) from error
        except UncompletedJobError as error:
            reason = f"out of time for the last time: run it again with -c ({error})"
            raise OutOfTime(reason) from error


class _Termination:
    """Notes SIGTERM and goes on; processes that this one forked end, as their parent expects."""

    def __init__(self) -> None:
        self._process = os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        # in a thread, for what is interrupted here may be writing the same files
        threading.Thread(target=_tell, args=(list(_listeners),)).start()


def _tell(listeners: list[Callable[[str], None]]) -> None:
    print(f"{TERMINATED}; goes on until it is killed", file=sys.stderr, flush=True)
    for note in listeners:
        note(TERMINATED)
