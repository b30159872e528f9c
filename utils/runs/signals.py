"""Signals that end jobs, and the job ids that a scheduler assigns.

A scheduler sends two signals. SIGUSR2 is sent some time before a time limit or a preemption and is
handled by submitit, which pickles the job again, requeues it and ends the process, or gives up
after `max_num_timeout` time-outs. SIGTERM is sent shortly before SIGKILL. It must not end the
process: Slurm would count that as a failure and would not requeue the job.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

MAIN_PROCESS = "LOSSYLESS_MAIN_PROCESS"  # environment variable: main.py's process id, for workers
GRACE_SECONDS = 30.0  # for workers to write their checkpoints
TERMINATED = "received SIGTERM: cancelled, preempted, or its node is going down"

ENDS = {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}  # not on Windows

_is_terminated = False  # whether this scheduled job has received SIGTERM
_is_busy = False  # whether this process is a sweep's worker and is running a job
_ours: set[int] = set()  # `ENDS` without the signals that this worker ignores, e.g. under nohup
_is_interrupted = False  # whether this worker process has received one of `ENDS`


class Terminated(SystemExit):
    """Outside a scheduler, a signal ends the process; the exit code is 128 + the signal number."""

    def __str__(self) -> str:
        return f"terminated by {signal.Signals(self.code - 128).name}"


class Requeued(SystemExit):
    """The process ends because its job has been requeued."""

    def __str__(self) -> str:
        name = scheduler_signal().name.removeprefix("SIG")
        return f"preempted or out of time (signal {name}): requeued"


class OutOfTime(RuntimeError):  # submitit does not return a SystemExit to the launcher
    """The job ran out of time, and no requeues are left."""


class PeerLost(RuntimeError):
    """Another process of the same job has ended, so this one cannot continue."""


def job_id() -> str | None:
    """The scheduler's id for this job, such as "87_3"; None outside a scheduler."""
    return None if "SUBMITIT_EXECUTOR" not in os.environ else _environment().job_id


def rank() -> int:
    """Rank of this process among those of its job; 0 outside a scheduler."""
    return 0 if "SUBMITIT_EXECUTOR" not in os.environ else _environment().global_rank


def n_restarts() -> int:
    """How many times Slurm has requeued and restarted this job."""
    return int(os.environ.get("SLURM_RESTART_COUNT", 0))


def _environment():
    from submitit import JobEnvironment  # imported lazily: only scheduled jobs need it

    return JobEnvironment()


def is_terminated() -> bool:
    """Whether this scheduled job has received SIGTERM and may be killed at any moment."""
    return _is_terminated


def scheduler_signal() -> signal.Signals:
    """Signal that announces a time limit or a preemption (SIGUSR2 is submitit's default)."""
    return signal.Signals[f"SIG{_environment().USR_SIG}"]


@contextlib.contextmanager
def raised(before: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Inside the block, raise `Terminated` on SIGTERM or SIGHUP, and KeyboardInterrupt on SIGINT.

    `before` is called when the first signal arrives. The default handlers of SIGTERM and SIGHUP
    would end the process at once, without a status or a report. Signals that are ignored or have
    other handlers are left alone.
    """
    received: list[int] = []
    deaf_until = 0.0  # one press of Ctrl-C may arrive twice

    def end(number: int) -> None:
        nonlocal deaf_until
        if time.monotonic() < deaf_until:
            return
        received.append(number)
        if len(received) == 1:
            deaf_until = time.monotonic() + 1
            before()
        raise error()

    def error() -> BaseException:
        number = received[0]
        return KeyboardInterrupt() if number == signal.SIGINT else Terminated(128 + number)

    default = (signal.SIG_DFL, signal.default_int_handler)
    usual = {number: signal.getsignal(number) for number in ENDS}
    usual = {number: handler for number, handler in usual.items() if handler in default}
    for number in usual:
        signal.signal(number, _InThisProcess(end))
    try:
        yield
    except BaseException as consequence:  # such as the death of a worker, noticed before the signal
        if not received and not isinstance(consequence, Exception):
            time.sleep(1)
        if received:
            raise error() from consequence
        raise
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def blocked_in_children() -> Iterator[None]:
    """Block `ENDS` in processes that are started inside the block, until they enter `raised_once`.

    Joblib kills all workers if one of them dies, even one that has no job yet. Children inherit the
    signal mask of the thread that starts them; signals to this process reach another thread.
    """
    over = threading.Event()
    threading.Thread(target=over.wait, daemon=True).start()
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)
        over.set()


@contextlib.contextmanager
def raised_once() -> Iterator[None]:
    """In a sweep's worker process, raise KeyboardInterrupt on the first signal from `ENDS`.

    The terminal and the main process may both send one, and the second would interrupt the writing
    of checkpoints. A worker without a job stays alive: if it ended, joblib would kill the others,
    too. Any further job is interrupted as soon as it starts.
    """
    global _is_busy
    if _is_interrupted:
        raise KeyboardInterrupt
    _ours.update(number for number in ENDS if signal.getsignal(number) is not signal.SIG_IGN)
    _is_busy = True
    listen()
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)
        yield
    finally:
        _is_busy = False


def _interrupt(number: int) -> None:
    global _is_interrupted
    is_first, _is_interrupted = not _is_interrupted, True
    if is_first and _is_busy:
        raise KeyboardInterrupt


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Handle the scheduler's signals inside the block; a no-op outside a scheduled job."""
    if not _is_main_thread_of_job():
        yield
        return
    global _is_terminated
    previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, scheduler_signal())}
    listen()
    try:
        yield
    finally:
        _is_terminated = False
        for number, handler in previous.items():
            signal.signal(number, handler)


def listen() -> None:
    """Install the handlers, or reinstall them if a library has replaced them.

    Lightning replaces them when training starts; its own handler stops training on SIGTERM.
    """
    if _is_busy:
        for number in _ours:
            signal.signal(number, _InThisProcess(_interrupt))
    if not _is_main_thread_of_job():
        return
    signal.signal(signal.SIGTERM, _InThisProcess(_note_termination))
    handler = signal.getsignal(scheduler_signal())
    if callable(handler) and not isinstance(handler, _HandleOnce):
        signal.signal(scheduler_signal(), _HandleOnce(handler))


def _is_main_thread_of_job() -> bool:
    return job_id() is not None and threading.current_thread() is threading.main_thread()


class _HandleOnce:
    """Call submitit's handler on the first signal only; a second call would interrupt the first.

    Forked processes inherit this handler and receive the same signal, but they ignore it.
    """

    def __init__(self, handler: Callable[[int, FrameType | None], object]):
        self._handler = handler
        self._process = os.getpid()
        self._is_handled = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        from submitit.core.utils import UncompletedJobError

        if self._is_handled or os.getpid() != self._process:
            return
        self._is_handled = True
        try:
            self._handler(number, frame)
        except SystemExit as error:
            raise Requeued(error.code) from error
        except UncompletedJobError as error:
            reason = f"out of time, with no requeues left: run the job again with -c ({error})"
            raise OutOfTime(reason) from error


class _InThisProcess:
    """Call a function on a signal; in forked processes, the signal has its default effect."""

    def __init__(self, function: Callable[[int], None]):
        self._function = function
        self._process = os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() == self._process:
            self._function(number)
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def _note_termination(number: int) -> None:
    global _is_terminated
    _is_terminated = True
    os.write(2, f"{TERMINATED}; continues until it is killed\n".encode())  # safe in a handler
