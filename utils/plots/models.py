"""Helpers for figures of models: method names, evaluation mode, selection of examples."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lossyless.base import Batch
from lossyless.compressors import LearnableCompressor
from lossyless.distortions import Distortion
from utils.data.module import DataModule

METHODS = {
    "input": "VC",
    "representative": "VIC",
    "positive": "BINCE",
    "none": "lossy Z",
    "target": "supervised",
}


def method_name(distortion: Distortion) -> str:
    """The name of the method that uses this kind of distortion, such as "VIC"."""
    return METHODS[distortion.needs]


@contextmanager
def drawing(compressor: LearnableCompressor) -> Iterator[None]:
    """Switch the compressor to evaluation mode permanently, and disable gradients in the block."""
    compressor.eval()
    with torch.no_grad():
        yield


def pick_examples(
    compressor: LearnableCompressor,
    data: DataModule,
    auxiliary: str,
    n: int,
    *,
    split: str = "test",
    seed: int | None = None,
) -> Batch:
    """Pick at most n examples of a split, on the compressor's device.

    `auxiliary` overrides the value set in `data`. `seed` is the seed for sampling the examples,
    which keep their order; None takes the first examples.
    """
    data = data.with_auxiliary(auxiliary)
    n_there = data.n_examples(split)
    chosen = torch.arange(n_there)
    if seed is not None:
        chosen = torch.randperm(n_there, generator=torch.Generator().manual_seed(seed))
    chosen = chosen[:n].sort().values
    parts, start = [], 0
    for batch in data.loader(split, device=compressor.device, shuffle=False):
        end = start + len(batch.x)
        rows = (chosen[(chosen >= start) & (chosen < end)] - start).to(batch.x.device)
        parts.append([None if field is None else field[rows] for field in batch])
        start = end
        if start > chosen[-1]:
            break
    fields = zip(*parts, strict=True)
    return Batch(*(None if field[0] is None else torch.cat(field) for field in fields))
