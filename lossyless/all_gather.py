"""Differentiable gathering of rows across the processes of a distributed training run.

Each process holds a share of every batch. Losses that compare the examples of a batch with each
other need the shares of all processes.
"""

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of training processes; 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Rank of this process; 0 without torch.distributed."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def gather(rows: Tensor) -> Tensor:
    """Gather the rows [n, ...] of all processes into [world_size * n, ...], in rank order.

    The gradient of a process's rows is summed over the losses of all processes. Averaging
    parameter gradients over processes, as `DistributedDataParallel` does, then gives the gradients
    of the mean loss.

    The process group also needs a backend for CPU tensors, as in "cpu:gloo,cuda:nccl". Raises
    ValueError if processes have different numbers of rows.
    """
    if world_size() == 1:
        return rows
    _check_same_length(len(rows))
    return _Gather.apply(rows)


def own_rows(gathered: Tensor) -> Tensor:
    """Return this process's share of the rows returned by `gather`."""
    return gathered.chunk(world_size())[rank()]


def _check_same_length(n: int) -> None:
    lengths = torch.empty(world_size(), dtype=torch.int64)  # on the CPU, to avoid waiting for GPUs
    dist.all_gather_into_tensor(lengths, torch.tensor([n]))
    if (lengths != n).any():
        raise ValueError(
            f"processes that train together need equal shares of a batch, but have "
            f"{lengths.tolist()} rows: use a batch size that is a multiple of {world_size()}"
        )


class _Gather(torch.autograd.Function):
    # the equivalent in torch.distributed.nn.functional is deprecated

    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        gathered = rows.new_empty(world_size() * len(rows), *rows.shape[1:])
        dist.all_gather_into_tensor(gathered, rows.contiguous())
        return gathered

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return own_rows(gradient)
