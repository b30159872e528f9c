"""Parallel entropy coding: results in order, and no hang when a process dies."""

import fcntl
import itertools
import multiprocessing
import os
import pickle
import resource
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from helpers.processes import own_workers
from helpers.stored_features import draw_features, write

from lossyless import parallel
from lossyless.base import Codec
from lossyless.coding.payloads import CodingError
from lossyless.files import FeatureFile, FileWriter, WorkerError, write_features
from lossyless.parallel import ordered_map

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers fork only on Linux")


@pytest.fixture(autouse=True)
def no_children_remain():
    yield
    assert own_workers() == []


@pytest.mark.parametrize("n_workers", [1, 2, 5])
@pytest.mark.parametrize("n_tasks", [0, 3, 4, 20])
def test_results_come_in_order(n_workers, n_tasks):
    def slow_for_some(i):
        time.sleep(0.002 * (i % 3))
        return i * i, os.getpid()

    results = list(ordered_map(slow_for_some, range(n_tasks), n_workers))
    assert [square for square, _ in results] == [i * i for i in range(n_tasks)]
    is_parallel = n_workers > 1 and n_tasks >= parallel.MIN_TASKS
    processes = {process for _, process in results}
    assert len(processes) <= n_workers
    assert (os.getpid() in processes) == (bool(n_tasks) and not is_parallel)


@pytest.mark.parametrize("n_workers", [1, 2, 6])
def test_tasks_are_taken_lazily(n_workers):
    """Without workers, they are taken one by one, so that tasks may reuse memory."""
    n_ahead = 1 if n_workers == 1 else max(parallel.MIN_TASKS, n_workers + 2)
    taken = []

    def tasks():
        for i in range(100):
            taken.append(i)
            yield i

    for n_done, _ in enumerate(ordered_map(abs, tasks(), n_workers)):
        assert len(taken) <= n_done + n_ahead


def test_exceptions_are_raised_in_place_of_the_results():
    def refuse(i):
        if i == 5:
            raise CodingError("chunk 5: no")
        return i

    results = ordered_map(refuse, range(20), 2)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(CodingError, match="chunk 5: no"):
        next(results)
    with pytest.raises((AttributeError, pickle.PicklingError)):  # results cannot be pickled
        list(ordered_map(lambda i: lambda: i, range(10), 2))


def test_closing_the_iterator_ends_the_workers(path, codec):
    write(path, codec, draw_features(1000))
    with FeatureFile(path, codec) as file:
        chunks = file.chunks(n_workers=2)
        next(chunks)
        assert len(own_workers()) == 2
        chunks.close()
        assert own_workers() == []


def test_an_interrupted_writer_ends_its_workers_at_once(path, codec, monkeypatch):
    """This holds even while the traceback, which keeps references to them, is alive."""

    def interrupt(self, *chunk):
        raise KeyboardInterrupt

    monkeypatch.setattr(FileWriter, "add", interrupt)
    with pytest.raises(KeyboardInterrupt) as caught:
        write(path, codec, draw_features(1000) * 0.3, n_workers=2)
    assert caught.tb is not None and own_workers() == []
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("is_idle", [False, True])
def test_a_killed_worker_is_an_error_and_not_a_hang(is_idle):
    def tasks():
        for i in range(100):
            if is_idle and i == 20:
                for child in own_workers():
                    os.kill(child.pid, signal.SIGKILL)
            yield i

    def work(i):
        if not is_idle and i >= 10:
            os.kill(os.getpid(), signal.SIGKILL)
        return i

    with pytest.raises(WorkerError, match="n_workers=1"):
        list(ordered_map(work, tasks(), 2))


def test_the_number_of_workers_is_positive_and_by_default_that_of_cores(monkeypatch):
    with pytest.raises(ValueError, match="n_workers"):
        list(ordered_map(str, [], 0))
    assert parallel.available_cores() == len(os.sched_getaffinity(0))
    monkeypatch.setattr(parallel, "available_cores", lambda: 3)
    results = ordered_map(lambda i: i, range(9))
    next(results)
    assert len(own_workers()) == 3
    results.close()


def test_threads_work_serially():
    with ThreadPoolExecutor(1) as pool:
        pids = pool.submit(lambda: set(ordered_map(lambda i: os.getpid(), range(9), 2))).result()
    assert pids == {os.getpid()}


def test_daemonic_processes_work_serially():
    def work(pipe):
        pipe.send(set(ordered_map(lambda i: os.getpid(), range(9), 2)) == {os.getpid()})

    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=work, args=(theirs,), daemon=True)
    process.start()
    assert ours.recv()
    process.join()


def write_forever(path: Path, codec: Codec, file_size: int, pipe: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, resource.RLIM_INFINITY))

    def batches():
        for i in itertools.count():
            yield draw_features(100, seed=i)
            if i == 20:
                pipe.send([child.pid for child in own_workers()])

    try:
        write_features(batches(), path, codec, chunk_size=100, n_workers=2)
    except OSError as error:
        pipe.send(error)


@contextmanager
def writer(path: Path, codec: Codec, file_size: int = resource.RLIM_INFINITY):
    """Start a process that writes an endless file; yield it and a connection to it."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=write_forever, args=(path, codec, file_size, theirs))
    process.start()
    theirs.close()
    try:
        yield process, ours
    finally:
        process.kill()
        process.join()


def test_a_killed_writer_leaves_no_file_and_no_process(path, codec):
    with writer(path, codec) as (process, pipe):
        workers_of_it = pipe.recv()
        process.kill()
        process.join()
    assert len(workers_of_it) == 2
    [left] = path.parent.iterdir()
    assert left != path
    deadline = time.monotonic() + 10
    while any(map(is_running, workers_of_it)) or is_locked(left):
        assert time.monotonic() < deadline, "workers outlive the main process"
        time.sleep(0.01)
    write(path, codec, draw_features(10))  # the next writer removes the stale file
    assert list(path.parent.iterdir()) == [path]


@pytest.fixture
def interruptible():
    """Let SIGINT raise KeyboardInterrupt, although shells make background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_the_writer_and_its_workers(path, codec):
    with writer(path, codec) as (process, pipe):
        workers_of_it = pipe.recv()
        for pid in [*workers_of_it, process.pid]:  # as a terminal does
            os.kill(pid, signal.SIGINT)
        process.join(10)
        assert process.exitcode == 1  # KeyboardInterrupt
    assert not any(map(is_running, workers_of_it)) and list(path.parent.iterdir()) == []


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_while_workers_start_ends_all():
    def work():
        os.setpgid(0, 0)
        for _ in ordered_map(abs, itertools.count(), 3):
            pass

    for i in range(6):
        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while not children.read_text():
            time.sleep(0.0005)
        time.sleep(0.001 * i)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        process.join(10)
        exitcode = process.exitcode
        if exitcode is None:
            os.killpg(process.pid, signal.SIGKILL)
        assert exitcode == 1  # KeyboardInterrupt


def is_running(process: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{process}/stat").read_text()  # Z: a zombie
    except (FileNotFoundError, ProcessLookupError):
        return False


def is_locked(path: Path) -> bool:
    """Whether a process, such as a writer, has locked the file."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_coding_errors_of_workers_are_raised_here(path, codec, monkeypatch):
    """Nothing hangs, because workers examine the symbols without torch's threads."""

    def refuse(coder, symbols):
        raise CodingError("no such symbol")

    monkeypatch.setattr(type(codec.coder()), "encode", refuse)
    z = draw_features(20_000)
    with pytest.raises(CodingError, match=r"z\.lsl: examples 0 to 4095: no such symbol"):
        write_features([z], path, codec, n_workers=2)
    assert list(path.parent.iterdir()) == []


def test_an_error_of_the_features_or_a_full_disk_leaves_no_file(path, codec):
    def batches():
        yield draw_features(500)
        raise OSError("no more images")

    with pytest.raises(OSError, match="no more images"):
        write_features(batches(), path, codec, chunk_size=32, n_workers=2)
    assert list(path.parent.iterdir()) == []
    with writer(path, codec, file_size=1 << 16) as (_, pipe):
        answers = [pipe.recv(), pipe.recv()]
    assert isinstance(answers[1], OSError) and "File too large" in str(answers[1])
    assert list(path.parent.iterdir()) == []
