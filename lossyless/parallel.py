"""Work in forked processes, in order and in bounded memory."""

import contextlib
import gc
import itertools
import multiprocessing
import os
import signal
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from typing import Any, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

MIN_TASKS = 4  # fewer are done sooner than processes start
CONNECTION_ERRORS = (EOFError, BrokenPipeError, ConnectionResetError)


class WorkerError(RuntimeError):
    """A worker process died."""


def available_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ordered_map(
    function: Callable[[Task], Result], tasks: Iterable[Task], n_workers: int | None = None
) -> Iterator[Result]:
    """`function` of each task, in order, computed in `n_workers` processes (default: one per core).

    Processes are forked, so that `function` need not be pickled and nothing is imported; tasks and
    results are pickled. At most one task per worker is under way, and no process starts without
    one. Few tasks are done in this process; with one worker, in a process that may have no
    children, and where forking is not safe (outside of Linux), all are, and each is taken only
    when its result is asked for.

    `function` must not use torch, whose threads do not survive a fork.

    Raises
    ------
    WorkerError
        A worker died, for instance killed for lack of memory. What `function` raises is raised
        here too.
    """
    if n_workers is not None and n_workers < 1:
        raise ValueError(f"n_workers is {n_workers}, expected at least 1 (or None)")
    n_workers = (n_workers or available_cores()) if can_fork() else 1
    if n_workers == 1:
        yield from map(function, tasks)
        return
    tasks = iter(tasks)
    head = list(itertools.islice(tasks, MIN_TASKS))
    are_few = len(head) < MIN_TASKS
    tasks = itertools.chain(head, tasks)
    del head  # or it would keep the first tasks in memory
    yield from map(function, tasks) if are_few else _map_in_workers(function, tasks, n_workers)


def can_fork() -> bool:
    """Whether this process may have children, and forking is safe: on Linux, in no daemon."""
    return sys.platform == "linux" and not multiprocessing.current_process().daemon


def _map_in_workers(
    function: Callable[[Task], Result], tasks: Iterable[Task], n_workers: int
) -> Iterator[Result]:
    """Tasks go round the workers; so do results, which keeps their order.

    A worker gets a task only after its last result was read: at no time do it and this process
    wait for each other to read.
    """
    with contextlib.ExitStack() as stack:
        workers: deque[_Worker] = deque()  # at work, the one with the earliest task first
        for task in tasks:  # made while the workers are at work
            if len(workers) < n_workers:
                worker = _Worker(function, [other.pipe for other in workers])
                stack.callback(worker.stop)
                worker.send(task)
                workers.append(worker)
                continue
            result = workers[0].receive()
            workers[0].send(task)
            workers.rotate(-1)
            yield result
        for worker in workers:
            yield worker.receive()


class _Worker:
    """A forked process that answers each task with `(True, result)` or `(False, exception)`."""

    def __init__(self, function: Callable, pipes_of_others: list[Connection]):
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        inherited = [*pipes_of_others, self.pipe]
        self._process = context.Process(
            target=_serve, args=(function, theirs, inherited), daemon=True
        )
        with warnings.catch_warnings():
            # Python warns of threads, whose locks a fork may leave closed: a worker touches none
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process.start()
        theirs.close()  # so that the worker's death ends the connection

    def send(self, task: Any) -> None:
        try:
            self.pipe.send(task)
        except CONNECTION_ERRORS as error:
            raise self._death() from error

    def receive(self) -> Any:
        try:
            is_done, result = self.pipe.recv()
        except (*CONNECTION_ERRORS, OSError) as error:  # OSError: died within a message
            raise self._death() from error
        if not is_done:
            raise result
        return result

    def stop(self) -> None:
        self.pipe.close()
        self._process.terminate()
        self._process.join()

    def _death(self) -> WorkerError:
        self._process.join(timeout=5)
        code = self._process.exitcode
        is_killed = code is not None and code < 0
        how = f"was killed by signal {-code}" if is_killed else f"ended with exit status {code}"
        return WorkerError(
            f"worker process {self._process.pid} {how}: perhaps memory ran out; try n_workers=1 "
            "or smaller chunks"
        )


def _serve(function: Callable, pipe: Connection, inherited: list[Connection]) -> None:
    """Answers tasks until the other end is closed, by `stop` or the main process's death."""
    gc.disable()  # what the main process left to collect is its own, GPU memory for instance
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for other in inherited:  # or the connections would outlive the main process
        other.close()
    with contextlib.suppress(*CONNECTION_ERRORS):
        while True:
            task = pipe.recv()
            try:
                answer = True, function(task)
            except Exception as error:  # raised again by the main process
                answer = False, error
            pipe.send(answer)
