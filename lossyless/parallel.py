"""Worker processes: an ordered parallel map in bounded memory, and limits on data loaders."""

import functools
import gc
import itertools
import multiprocessing.context
import operator
import os
import shutil
import signal
import site
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TypeVar

from lossyless.printing import print_error

Task = TypeVar("Task")
Result = TypeVar("Result")

ROOT = str(Path(__file__).parents[1])
SHARED_MEMORY = "/dev/shm"
# parts of DataLoader's error messages about system limits
WORKER_ERRORS = ("DataLoader worker (pid", "Pin memory", "shared memory", "Too many open files")
MIN_TASKS = 4  # fewer tasks finish faster than processes can be started


class WorkerError(RuntimeError):
    """A worker process died."""


class Portable:
    """Mixin for objects sent to spawned worker processes, which import this package again.

    torch.hub removes the package's folder from `sys.path`; the workers add it back.
    """

    def __reduce_ex__(self, protocol):
        is_spawning = multiprocessing.context.get_spawning_popen() is not None
        if not is_spawning or PathFinder.find_spec("lossyless"):
            return super().__reduce_ex__(protocol)
        # unpickled in this order; the second one is the result
        parts = (_Reduced(site.addsitedir, (ROOT,)), _Reduced(*super().__reduce_ex__(1)))
        return operator.getitem, (parts, 1)


class _Reduced:
    """An object that unpickles as the result of a function call."""

    def __init__(self, *reduced: object):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


def available_cores() -> int:
    """Number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def affordable_workers(n_workers: int, batch_bytes: int) -> int:
    """Number of DataLoader workers, at most `n_workers`, that the system's limits allow.

    Each worker opens up to eight files and keeps two batches in shared memory, which is small in
    containers. Beyond the limits, a loader would hang or die. If a limit reduces the number, a line
    on stderr names the limit.
    """
    if n_workers == 0 or sys.platform != "linux":
        return n_workers
    max_files, n_files = os.sysconf("SC_OPEN_MAX"), len(os.listdir("/proc/self/fd"))
    total = free = 0
    with suppress(FileNotFoundError):  # some containers do not mount it
        memory = shutil.disk_usage(SHARED_MEMORY)
        total, free = memory.total, memory.free
    n, reason = min(
        (n_workers, ""),
        ((max_files - n_files) // 8 - 2, f"`ulimit -n` is only {max_files}"),
        (
            free // (2 * max(batch_bytes, 1)) - 1,
            f"{SHARED_MEMORY} has only {total >> 20} MiB (in Docker, raise --shm-size)",
        ),
    )
    n = max(n, 0)
    if reason:
        _say(f"using {n} of {n_workers} data-loading workers: {reason}")
    return n


_say = functools.cache(print_error)  # prints each line once, not every epoch


@contextmanager
def loader_errors(batches: Iterator, kind: type[Exception], remedy: str) -> Iterator[None]:
    """Raise a one-line error if the system kills a DataLoader worker or denies it resources.

    The workers of `batches`, the iterator of a DataLoader, exit with this context.
    """
    try:
        yield
    except RuntimeError as error:
        if not any(part in str(error) for part in WORKER_ERRORS):
            raise
        raise kind(
            "a process that reads images died, or ran out of memory, shared memory or file "
            f"handles: use {remedy}"
        ) from error
    finally:
        # An error's traceback keeps the workers until garbage collection, which closes their queues
        # first and would then wait 5 s for each of them.
        if hasattr(batches, "_shutdown_workers"):
            batches._shutdown_workers()


def can_fork() -> bool:
    """Whether this process can safely fork workers: only on Linux, and not if it is daemonic."""
    return sys.platform == "linux" and not multiprocessing.current_process().daemon


def ordered_map(
    function: Callable[[Task], Result], tasks: Iterable[Task], n_workers: int | None = None
) -> Iterator[Result]:
    """Apply `function` to each task in `n_workers` processes (default: one per core).

    Yields the results in order. Tasks and results are pickled, but `function` is not, because
    processes are forked. At most n_workers + 2 tasks are in progress at a time. With few tasks,
    with n_workers=1, or where forking is unsafe, tasks run lazily in this process.

    `function` must not use torch, whose threads do not survive a fork. Its exceptions propagate.
    Raises WorkerError if a worker dies, for instance because memory ran out.
    """
    if n_workers is not None and n_workers < 1:
        raise ValueError(f"n_workers is {n_workers}, expected at least 1 (or None)")
    # other threads may be using OpenBLAS, which can deadlock in a fork
    is_main = threading.current_thread() is threading.main_thread()
    n_workers = (n_workers or available_cores()) if is_main and can_fork() else 1
    if n_workers == 1:
        yield from map(function, tasks)
        return
    tasks = iter(tasks)
    head = list(itertools.islice(tasks, MIN_TASKS))
    are_few = len(head) < MIN_TASKS
    tasks = itertools.chain(head, tasks)
    del head  # otherwise, it would keep the first tasks in memory
    yield from map(function, tasks) if are_few else _map_in_workers(function, tasks, n_workers)


def _map_in_workers(
    function: Callable[[Task], Result], tasks: Iterable[Task], n_workers: int
) -> Iterator[Result]:
    executor = ProcessPoolExecutor(
        n_workers,
        mp_context=multiprocessing.get_context("fork"),
        initializer=_start_worker,
        initargs=(function,),
    )
    futures: deque = deque()
    try:
        for task in tasks:
            with warnings.catch_warnings(), without_interrupts():
                # Python warns that forks copy locks held by threads, but workers use none of them
                warnings.simplefilter("ignore", DeprecationWarning)
                futures.append(executor.submit(_work, task))
            if len(futures) == n_workers + 2:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
    except BrokenProcessPool as error:
        raise WorkerError(
            "a worker process died, perhaps because memory ran out: try n_workers=1 or smaller "
            "chunks"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Delay Ctrl-C: during a fork, it could be lost, or end a half-started worker.

    Workers inherit the blocked signal: only the main process handles it.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows, which does not fork
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_function: Callable  # set in each worker by `_start_worker`


def _start_worker(function: Callable) -> None:
    global _function
    _function = function
    gc.freeze()  # do not collect objects inherited from the main process, such as GPU tensors
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _work(task: Task) -> Result:
    return _function(task)
