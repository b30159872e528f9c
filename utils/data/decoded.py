"""Data set of decoded representations, on which predictors are trained."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from lossyless.base import Batch
from utils.data import examples
from utils.data.examples import InMemory, draw_order
from utils.data.module import DataError, DataModule


class DecodedDataModule(DataModule):
    """Decoded representations and their targets, without augmentation; `Batch.aux` is None.

    Parameters
    ----------
    splits : representations [N, *shape] (float, or uint8 for images) and targets (int64 [N]
        or float32 [N, n_outputs]) for "train", "val" and "test".
    n_copies : number of augmented copies of the training set that are concatenated in "train".
        Each epoch uses one copy; epochs cycle through the copies.
    task, n_outputs, kind, kwargs : see `DataModule`.
    """

    def __init__(
        self,
        splits: Mapping[str, tuple[Tensor, Tensor]],
        *,
        task: str,
        n_outputs: int,
        kind: str = "vector",
        n_copies: int = 1,
        **kwargs: object,
    ) -> None:
        super().__init__(auxiliary="none", **kwargs)
        self.shape = tuple(splits["train"][0].shape[1:])
        self.kind, self.task, self.n_outputs = kind, task, n_outputs
        self.n_copies = n_copies
        self._splits = {split: InMemory(x, y) for split, (x, y) in splits.items()}

    def n_examples(self, split: str) -> int:
        """Number of examples in a split; for training, in one copy."""
        n = len(self._splits[split].targets)
        return n // self.n_copies if split == "train" else n

    def make_batches(
        self, split: str, *, batch_size: int, is_shuffled: bool, generator: torch.Generator
    ) -> Iterator[Batch]:
        n = self.n_examples(split)
        first = self.copy_number * n if split == "train" else 0
        batches = (first + draw_order(n, is_shuffled, generator)).split(batch_size)
        for x, y in self._splits[split].read(batches, generator.device):
            yield Batch(from_pixels(x) if x.dtype == torch.uint8 else x.float(), y)

    @staticmethod
    def collect(batches: Iterator[Tensor], n_examples: int, path: Path, *, kind: str) -> Tensor:
        """Collect batches of decoded examples into one tensor [N, *shape].

        Images are rounded to 8 bits per value, as in image files. Raises DataError unless there are
        `n_examples`, one per target. For `path`, see `allocate`; error messages show its name.
        """
        collected, n_collected = torch.empty(0), 0
        for batch in batches:
            batch = batch if kind == "vector" else to_pixels(batch)
            if not n_collected:
                collected = allocate((n_examples, *batch.shape[1:]), batch.dtype, path)
            end = n_collected + len(batch)
            if end <= n_examples:
                collected[n_collected:end] = batch
            n_collected = end
        if n_collected != n_examples:
            raise DataError(
                f"{path.name}: {n_examples} targets, but {n_collected} examples. The files of the "
                "communication stage do not match: delete its folder and run it again."
            )
        return collected


def to_pixels(images: Tensor) -> Tensor:
    """Convert images in [0, 1] to uint8; lossless for decoded image files."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def from_pixels(pixels: Tensor) -> Tensor:
    """Convert uint8 pixels to float32 images in [0, 1]."""
    return pixels.float() / 255


def allocate(shape: tuple[int, ...], dtype: torch.dtype, path: Path) -> Tensor:
    """Allocate a tensor, memory-mapped to a file at `path` if larger than `MAX_RESIDENT_BYTES`.

    The file is unlinked immediately, so its space is freed with the tensor or when the process
    ends.
    """
    n_values = math.prod(shape)
    if n_values * dtype.itemsize <= examples.MAX_RESIDENT_BYTES:
        return torch.empty(shape, dtype=dtype)
    try:
        return torch.from_file(str(path), shared=True, size=n_values, dtype=dtype).view(shape)
    finally:
        path.unlink(missing_ok=True)
