"""Decoded representations as a data set: what the prediction stage learns from."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lossyless.batch import Batch
from utils.data.base import SPLITS
from utils.data.in_memory import InMemoryDataModule


class DecodedDataModule(InMemoryDataModule):
    """Serves (decoded representation, target) pairs; nothing is augmented, `Batch.aux` is None.

    Parameters
    ----------
    splits : mapping of str to (Tensor [N, *shape], Tensor [N] or [N, n_outputs])
        Float representations and their targets (int64 classes or float values) for each of "train",
        "val" and "test".
    task : {"classification", "regression"}
    n_outputs : int
        Number of classes, or of dimensions of the target.
    kind : {"vector", "bw_image", "colour_image"}
    batch_size, eval_batch_size, seed : int
        See `DataModule`.
    """

    def __init__(
        self,
        splits: Mapping[str, tuple[Tensor, Tensor]],
        *,
        task: str,
        n_outputs: int,
        kind: str = "vector",
        batch_size: int = 128,
        eval_batch_size: int = 1024,
        seed: int = 123,
    ) -> None:
        super().__init__(
            auxiliary="none", batch_size=batch_size, eval_batch_size=eval_batch_size, seed=seed
        )
        if missing := [split for split in SPLITS if split not in splits]:
            raise ValueError(f"Decoded data need the splits {SPLITS}, missing: {missing}.")
        self.shape = tuple(splits["train"][0].shape[1:])
        self.kind = kind
        self.task = task
        self.n_outputs = n_outputs
        for split, (x, y) in splits.items():
            self._check(split, x, y)
        self._decoded = dict(splits)

    def load_splits(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {split: (x.float(), y) for split, (x, y) in self._decoded.items()}

    def make_batch(
        self, inputs: Tensor, targets: Tensor, *, split: str, **generators: torch.Generator
    ) -> Batch:
        return Batch(inputs, targets)

    def _check(self, split: str, x: Tensor, y: Tensor) -> None:
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(
                f"Decoded representations of split {split!r} have shape {list(x.shape[1:])}, "
                f"those of 'train' {list(self.shape)}."
            )
        if self.task == "classification":
            is_right, expected = y.dtype == torch.int64 and y.shape == x.shape[:1], "int64 [N]"
        else:
            expected = f"float32 [N, {self.n_outputs}]"
            is_right = y.dtype == torch.float32 and y.shape == (len(x), self.n_outputs)
        if not is_right:
            raise ValueError(
                f"Targets of split {split!r} must be {expected} with N = {len(x)}, "
                f"got {y.dtype} {list(y.shape)}."
            )
