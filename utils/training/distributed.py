"""Several processes that work on one job, one for each device: they meet, agree, and end together.

submitit starts them, each with the same config. The first one, of rank 0, decides and writes; the
others train with it, and otherwise wait for it. When one ends before its time, all do.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from omegaconf import DictConfig

from lossyless.all_gather import rank, world_size
from utils.runs import scheduler
from utils.runs.signals import INTERRUPTIONS
from utils.training.building import pick_device

T = TypeVar("T")

# The first process may compress for hours while the others wait: they are watched in other ways.
TIMEOUT = timedelta(days=30)
JOIN_TIMEOUT = timedelta(minutes=5)  # until all have started
WATCH_SECONDS = 1.0  # between two looks at how the others are
TOLD_TIMEOUT = timedelta(seconds=5)  # until all know why the main process has ended
GRACE_SECONDS = 30.0  # for an error to end a process, once another has ended
GONE_SECONDS = 3 * WATCH_SECONDS  # for a process to be found gone, or to say why it ends
ENDED = "ended"
INTERRUPTED = "was interrupted"
GONE = "is gone without a word: it was killed, or its node failed"

_watch: "_Watch | None" = None


class ProcessError(RuntimeError):
    """Another process of the job failed; the message holds its traceback."""


def is_main() -> bool:
    """Whether this process is the one that decides and writes."""
    return rank() == 0


def broadcast(value: T) -> T:
    """The value that the main process has, in all processes."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
    return values[0]


def from_main(function: Callable[[], T]) -> T:
    """What the main process gets from a function, which it alone calls."""
    return broadcast(function() if is_main() else None)


def barrier() -> None:
    """Wait until all processes are here."""
    if world_size() > 1:
        dist.all_reduce(torch.zeros(1))  # on the CPU: a barrier of NCCL would keep the devices busy


@contextlib.contextmanager
def joined(cfg: DictConfig) -> Iterator[None]:
    """Bring the processes of a job together; nothing if there is one, or they are already.

    Raises
    ------
    ValueError
        If there are not as many processes or GPUs as `trainer.devices` and `trainer.num_nodes` say,
        or a batch cannot be shared equally.
    ProcessError
        In those that had to end because another one failed.
    SystemExit
        In those that had to end because another one was interrupted, or is gone without a word.
    """
    global _watch
    if world_size() > 1:
        yield
        return
    _export_place()
    _check_number(cfg)
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    _check_shares(cfg)
    _watch, is_to_be_told = _meet(pick_device(cfg)), False
    try:
        yield
        barrier()
    except BaseException as error:
        is_first, is_to_be_told = is_first_to_end(error), is_main()
        if not is_first:
            raise _watch.end_elsewhere() from error
        raise
    finally:
        dist.destroy_process_group()  # operations that wait for this process fail
        if is_to_be_told:
            _watch.wait_until_told()
        _watch.stop()
        _watch = None


def is_first_to_end(error: BaseException) -> bool:
    """Whether an error ends this process of its own accord, not because another one has ended.

    It may take some seconds to find out. An error that comes of a process that is gone, such as
    "Connection closed by peer", is none of this one.
    """
    return _watch is None or _watch.is_first(error)


def end_to_note(error: BaseException) -> BaseException | None:
    """What this process has to note as the end of a run, if anything, given its own error.

    The first to end notes its error; one that is gone cannot, so the main process does it.
    """
    if is_first_to_end(error):
        return error
    return _watch.end_elsewhere() if is_main() and _watch.is_gone() else None


def _export_place() -> None:
    """Tell torch, by environment variables as `torchrun` sets them, which process this is."""
    if scheduler.job_id() is None:
        return
    from submitit import JobEnvironment
    from submitit.helpers import TorchDistributedEnvironment

    if JobEnvironment().num_tasks == 1:
        return
    place = TorchDistributedEnvironment()
    if JobEnvironment().num_nodes == 1:
        place.master_addr = "127.0.0.1"  # host names need not resolve
    # all GPUs stay visible: numbers of ranks are not those of the GPUs that a job was given
    place.export(set_cuda_visible_devices=False, overwrite=True)


def _check_number(cfg: DictConfig) -> None:
    """Raise unless there is a process, and a GPU, for each device that the config asks for."""
    devices, nodes = cfg.trainer.devices, cfg.trainer.num_nodes
    found = int(os.environ.get("WORLD_SIZE", 1))
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    asked = f"trainer.devices={devices} and trainer.num_nodes={nodes}"
    if found == 1 and devices * nodes > 1:
        raise ValueError(
            f"{asked} need {devices * nodes} processes, but there is one: let them be started on "
            "this machine with slurm=local (-s local), or on a cluster (-s NAME)"
        )
    if (found, here) != (devices * nodes, devices):
        raise ValueError(
            f"{asked} need {devices * nodes} processes, {devices} on each node, but {found} were "
            f"started, {here} on this node: let conf/slurm/{cfg.slurm.name}.yaml have "
            "tasks_per_node=${trainer.devices} and nodes=${trainer.num_nodes}"
        )
    n_gpus = torch.cuda.device_count()
    if pick_device(cfg).type == "cuda" and n_gpus < devices:
        raise ValueError(
            f"trainer.devices={devices}, but torch sees {n_gpus} GPUs on {socket.gethostname()}: "
            "ask the cluster for more (slurm.gpus_per_node), or use fewer devices"
        )


def _check_shares(cfg: DictConfig) -> None:
    """Raise if a training batch cannot be shared equally."""
    n = cfg.trainer.devices * cfg.trainer.num_nodes
    for place in ("data_feat", "data_pred"):
        batch_size = cfg[place].kwargs.batch_size
        if batch_size % n:
            raise ValueError(
                f"{place}.kwargs.batch_size={batch_size}, of all devices together, cannot be "
                f"shared equally by {n} devices: choose a multiple of {n}"
            )


def _meet(device: torch.device) -> "_Watch":
    """Join the group of the job's processes, and watch how the others are from now on."""
    number, total = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(address, port, total, is_master=number == 0, timeout=JOIN_TIMEOUT)
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, store=store, rank=number, world_size=total, timeout=TIMEOUT)
    return _Watch(store, dist.TCPStore(address, port, is_master=False, timeout=JOIN_TIMEOUT))


class _Watch:
    """Knows which process ended first, and ends this one when another has ended.

    An operation on several GPUs waits for ever for a process that is gone, and cannot be
    interrupted; so the whole process ends.

    Parameters
    ----------
    group_store : the store of the group; that of the main process serves all others.
    store : a connection of its own to it, for calls of one connection wait for each other.
    """

    def __init__(self, group_store: dist.TCPStore, store: dist.TCPStore):
        self._group_store = group_store  # else the last words would go with the group
        self._store = store
        self._rank = rank()
        self._n_processes = world_size()
        self._end: _End | None = None
        self._lock = threading.Lock()  # of the store and of what is known from it
        self._stopped = threading.Event()
        store.set(f"process {self._rank}", f"{os.getpid()} {socket.gethostname()}")
        self._neighbours = self._find_neighbours()
        threading.Thread(target=self._run, daemon=True).start()

    def is_first(self, error: BaseException) -> bool:
        """Whether no other process has ended; from now on this one is the first."""
        is_interruption = isinstance(error, INTERRUPTIONS)
        own = _End(self._rank, is_interruption, INTERRUPTED if is_interruption else _in_full(error))
        # what all processes do together raises it when one is gone
        gone = self._find_gone() if isinstance(error, RuntimeError) and not is_interruption else []
        with self._lock:
            if self._end is None:
                self._end = self._claim(_gone(gone[0]) if gone else own)
            return self._end.rank == self._rank

    def is_gone(self) -> bool:
        """Whether the process that ended first did so without a word."""
        return self._end.words == GONE

    def end_elsewhere(self) -> BaseException:
        """What to raise where another process has ended first."""
        end = self._end
        if end.is_interruption:  # no failure of this one
            return SystemExit(f"process {end.rank} of the job {end.words}")
        return ProcessError(f"process {end.rank} of the job failed:\n{end.words}")

    def wait_until_told(self) -> None:
        """Serve the store until all others know why the main process has ended."""
        others = [f"told {i}" for i in range(1, self._n_processes) if i != self._end.rank]
        if not others:
            return
        # some may be gone, and need not be told
        with self._lock, contextlib.suppress(dist.DistStoreError):
            self._store.wait(others, TOLD_TIMEOUT)

    def stop(self) -> None:
        """End without regard to the others."""
        self._stopped.set()

    def _claim(self, own: "_End") -> "_End":
        """The end that came first, `own` if there was none."""
        try:
            return self._told(self._store.compare_set(ENDED, "", own.encoded()))
        except dist.DistError:  # the main process, which serves the store, is gone
            return own if self._rank == 0 else MAIN_IS_GONE

    def _look(self) -> "_End | None":
        """Which process has ended, if one has; and let the others know that this one has not."""
        try:
            self._store.add(f"beats {self._rank}", 1)
            is_over = self._store.check([ENDED])
            return self._told(self._store.get(ENDED)) if is_over else None
        except dist.DistError:
            return MAIN_IS_GONE

    def _told(self, encoded: bytes) -> "_End":
        self._store.set(f"told {self._rank}", "")
        return _End.decoded(encoded)

    def _find_gone(self) -> list[int]:
        """The processes that ended without a word: here they do not run, elsewhere do not beat."""
        before, deadline = self._beats(), time.monotonic() + GONE_SECONDS
        while time.monotonic() < deadline:
            with self._lock:
                self._end = self._end or self._look()
            if self._end is not None:
                return []
            if dead := self._dead_neighbours():
                return dead
            time.sleep(WATCH_SECONDS / 20)
        after = self._beats()
        return [i for i in before if before[i] == after.get(i)]

    def _beats(self) -> dict[int, int]:
        """How often each process on another machine has looked how the others are."""
        others = set(range(self._n_processes)) - {self._rank} - self._neighbours.keys()
        try:
            with self._lock:
                return {i: self._store.add(f"beats {i}", 0) for i in sorted(others)}
        except dist.DistError:  # the main process is gone, as the next look will tell
            return {}

    def _dead_neighbours(self) -> list[int]:
        return [i for i, pid in self._neighbours.items() if not _is_alive(pid)]

    def _find_neighbours(self) -> dict[int, int]:
        """Process ids of the others on this machine, by their ranks."""
        found = {}
        for i in range(self._n_processes):
            pid, host = self._store.get(f"process {i}").decode().split()
            if i != self._rank and host == socket.gethostname():
                found[i] = int(pid)
        return found

    def _run(self) -> None:
        while not self._stopped.wait(WATCH_SECONDS):
            reason = self._why_end()
            if reason is None:
                continue
            if not self._stopped.wait(GRACE_SECONDS):
                print(f"this process ends, for {reason}", file=sys.stderr, flush=True)
                os._exit(1)

    def _why_end(self) -> str | None:
        with self._lock:
            self._end = self._end or self._look()
        if self._end is not None:
            is_own = self._end.rank == self._rank
            return None if is_own else f"process {self._end.rank} of the job has ended"
        gone = [f"{i} (pid {self._neighbours[i]})" for i in self._dead_neighbours()]
        return f"process {', '.join(gone)} of the job is gone" if gone else None


@dataclass(frozen=True)
class _End:
    """How a process ended."""

    rank: int
    is_interruption: bool
    words: str

    def encoded(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def decoded(cls, text: bytes) -> "_End":
        return cls(**json.loads(text))


def _gone(number: int) -> _End:
    """The end of a process that was killed: no failure of the run, which can go on later."""
    return _End(number, is_interruption=True, words=GONE)


MAIN_IS_GONE = _gone(0)


def _in_full(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def _is_alive(pid: int) -> bool:
    """Whether a process runs; those that nobody has asked for their exit status do not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"
