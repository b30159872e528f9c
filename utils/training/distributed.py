"""The processes of a job, one per device: how they form a group, share values and end together.

submitit starts all processes with the same config. Rank 0 makes decisions and writes files; the
other ranks take part in training and otherwise wait for rank 0.
"""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from omegaconf import DictConfig
from pytorch_lightning.plugins.layer_sync import LayerSync
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from lossyless.all_gather import gather, own_rows, rank, world_size
from utils.runs import signals
from utils.runs.signals import PeerLost
from utils.runs.status_file import own_job
from utils.training.building import pick_device

T = TypeVar("T")

JOIN_TIMEOUT = timedelta(minutes=5)  # for all processes to start
TRAIN_TIMEOUT = timedelta(minutes=10)  # for a step; NCCL then ends a process whose peer is gone
WAIT_TIMEOUT = timedelta(days=30)  # in `broadcast` and `barrier`: rank 0 may compress for hours
# environment variables that each process needs
TORCHRUN = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
PEER_LOST = "another process of the job ended first: killed, out of memory, or failed (see its log)"
# Substrings of the errors that gloo, NCCL and torch's store raise after a peer has ended.
PEER_GONE = (
    "closed",
    "connection reset",
    "broken pipe",
    "pair closure",
    "remote process exited",
    "timed out",
    "timeout",
)

_waiting: dist.ProcessGroup | None = None  # process group for `broadcast` and `barrier`


def is_main() -> bool:
    """Whether this is the main process (rank 0)."""
    return rank() == 0


def broadcast(value: T) -> T:
    """Return rank 0's value on all ranks."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, group=_waiting, device=torch.device("cpu"))
    return values[0]


def from_main(function: Callable[[], T]) -> T:
    """Call a function on rank 0 only, and return its result on all ranks."""
    return broadcast(function() if is_main() else None)


def barrier() -> None:
    """Wait until all processes reach this call."""
    if world_size() > 1:
        dist.all_reduce(torch.zeros(1), group=_waiting)  # on the CPU: NCCL would keep GPUs busy


@contextlib.contextmanager
def joined(cfg: DictConfig) -> Iterator[None]:
    """Join the processes of a job; a no-op if there is only one, or if they have already joined.

    Raises ValueError if the number of processes does not match `trainer.devices` and
    `trainer.num_nodes`, GPUs or environment variables are missing, or a batch cannot be split
    equally. Raises PeerLost if another process has ended.
    """
    global _waiting
    if world_size() > 1:
        yield
        return
    _export_rank()
    _check_number(cfg)
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    _check_batch_sizes(cfg)
    _join(pick_device(cfg))
    try:
        with peer_errors():
            yield
            barrier()
    except BaseException as error:
        # record it first: destroying the group causes errors in the peers
        if (job := own_job()) is not None:
            job.record_end(error)
        raise
    finally:
        dist.destroy_process_group()
        _waiting = None


@contextlib.contextmanager
def peer_errors() -> Iterator[None]:
    """Replace errors that only report a lost peer with PeerLost, which counts as an interruption.

    If the peer failed, it has recorded its own error. If it was killed, the run can resume.
    """
    try:
        yield
    except RuntimeError as error:
        is_of_group = isinstance(error, dist.DistError) or "gloo/" in str(error)
        text = str(error).lower()
        if not is_of_group or not any(words in text for words in PEER_GONE):
            raise
        raise PeerLost(PEER_LOST) from error


def _export_rank() -> None:
    """Derive the environment variables of `torchrun` from those of the scheduler."""
    if signals.job_id() is None:
        return
    from submitit import JobEnvironment
    from submitit.helpers import TorchDistributedEnvironment

    if JobEnvironment().num_tasks == 1:
        return
    place = TorchDistributedEnvironment()
    if JobEnvironment().num_nodes == 1:
        place.master_addr = "127.0.0.1"  # the host name might not resolve
    # keep all GPUs visible: the local rank need not be the index of an allocated GPU
    place.export(set_cuda_visible_devices=False, overwrite=True)


def _check_number(cfg: DictConfig) -> None:
    """Raise ValueError unless there is one process and, when using GPUs, one GPU per device."""
    devices, nodes = cfg.trainer.devices, cfg.trainer.num_nodes
    found = int(os.environ.get("WORLD_SIZE", 1))
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    asked = f"trainer.devices={devices} and trainer.num_nodes={nodes}"
    if (found, here) != (devices * nodes, devices):
        raise ValueError(
            f"{asked} need {devices * nodes} processes, {devices} on each node, but {found} were "
            f"started ({here} on this node): set tasks_per_node=${{trainer.devices}} and "
            f"nodes=${{trainer.num_nodes}} in conf/slurm/{cfg.slurm.name}.yaml"
        )
    n_gpus = torch.cuda.device_count()
    if pick_device(cfg).type == "cuda" and n_gpus < devices:
        raise ValueError(
            f"trainer.devices={devices}, but torch sees {n_gpus} GPUs on {socket.gethostname()}: "
            "request more (slurm.gpus_per_node), or use fewer devices"
        )


def _check_batch_sizes(cfg: DictConfig) -> None:
    """Raise ValueError if a training batch cannot be split equally among the devices."""
    n = cfg.trainer.devices * cfg.trainer.num_nodes
    for place in ("data_feat", "data_pred"):
        batch_size = cfg[place].kwargs.batch_size
        if batch_size % n:
            raise ValueError(
                f"{place}.kwargs.batch_size={batch_size}, the total over all devices, cannot be "
                f"split equally among {n} devices: choose a multiple of {n}"
            )


def _join(device: torch.device) -> None:
    """Initialise two process groups: one for training and one for waiting."""
    global _waiting
    if missing := [name for name in TORCHRUN if name not in os.environ]:
        raise ValueError(
            f"missing environment variables {', '.join(missing)}: unset WORLD_SIZE, and start the "
            "processes with slurm=local (-s local) or on a cluster (-s NAME)"
        )
    number, total = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(address, port, total, is_master=number == 0, timeout=JOIN_TIMEOUT)
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(
        backend, store=store, rank=number, world_size=total, timeout=TRAIN_TIMEOUT
    )
    _waiting = dist.new_group(backend="gloo", timeout=WAIT_TIMEOUT)


class GatheredBatchNorm(LayerSync):
    """Synchronised batch normalisation on CPUs, which torch does not support.

    Outputs, gradients and running statistics equal those of a single process with the whole batch.
    Each process gathers all rows, whereas `torch.nn.SyncBatchNorm` on GPUs gathers only statistics.
    """

    def __init__(self) -> None:
        self._hooks: list[RemovableHandle] = []

    def apply(self, model: nn.Module) -> nn.Module:
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                self._hooks.append(module.register_forward_pre_hook(_gather_input))
                self._hooks.append(module.register_forward_hook(_take_own_output))
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        while self._hooks:
            self._hooks.pop().remove()
        return model


def _gather_input(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
    return tuple(map(gather, inputs)) if module.training else None


def _take_own_output(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor | None:
    return own_rows(output) if module.training else None
