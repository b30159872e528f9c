"""Concatenated batches, and seeded generators."""

from collections.abc import Iterable

import torch

from lossyless.base import Batch


def gather(loader: Iterable[Batch]) -> Batch:
    """All x, y and aux from one pass over a loader."""
    parts = zip(*loader, strict=True)
    return Batch(*(None if part[0] is None else torch.cat(part) for part in parts))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
