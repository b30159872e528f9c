"""Run functions in several processes, like the ranks of a job."""

import multiprocessing
import os
import pickle
import socket
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
import torch.multiprocessing as mp


def in_processes(n: int, function: Callable, *args: object, timeout: float = 60) -> list[object]:
    """Call `function(*args)` in n processes with the environment of `torchrun`; return the results.

    An exception is returned as its traceback, a killed process as its exit code.
    """
    context = mp.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(target=_rank, args=(rank, n, port, Path(folder), function, args))
            for port in [_free_port()]
            for rank in range(n)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout)
        hanging = [rank for rank, process in enumerate(processes) if process.is_alive()]
        for process in processes:
            process.kill()
        assert not hanging, f"processes {hanging} were still running after {timeout} s"
        return [_result(Path(folder), rank, process) for rank, process in enumerate(processes)]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _rank(rank: int, n: int, port: int, folder: Path, function: Callable, args: tuple) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(n),
        "LOCAL_WORLD_SIZE": str(n),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    try:
        result = function(*args)
    except BaseException:
        result = traceback.format_exc()
    (folder / str(rank)).write_bytes(pickle.dumps(result))


def _result(folder: Path, rank: int, process: mp.Process) -> object:
    file = folder / str(rank)
    return pickle.loads(file.read_bytes()) if file.is_file() else process.exitcode


def own_workers() -> list[multiprocessing.process.BaseProcess]:
    """Worker processes of this test, without those of other tests that joblib keeps for reuse."""
    children = multiprocessing.active_children()
    return [child for child in children if type(child).__name__ != "LokyProcess"]
