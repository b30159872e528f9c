"""Compressed files as data sets of torch."""

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import Dataset

from lossyless.base import Codec
from lossyless.files.labels import as_array
from lossyless.files.reader import FeatureFile, Source


class FeatureDataset(Dataset):
    """The examples of a file for a `DataLoader`: z [*shape], or (z, label).

    Chunks are decoded when they are needed, and the last ones cached. Access in random order
    decodes a chunk for nearly every example once the file outgrows the cache: then read the whole
    file, or write it in smaller chunks.

    Parameters
    ----------
    source, codec : see `FeatureFile`.
    labels : one per example; True: those of the file.
    """

    def __init__(self, source: Source, codec: Codec, labels: ArrayLike | bool | None = None):
        self.file = FeatureFile(source, codec)
        if labels is True:
            labels = self.file.labels()
            if labels is None:
                raise ValueError(f"{self.file.name}: holds no labels")
        self.labels = None if labels is None else as_array(labels)
        if self.labels is not None and len(self.labels) != len(self.file):
            raise ValueError(
                f"{self.file.name}: has {len(self.file)} examples, but {len(self.labels)} labels "
                "were given"
            )

    def close(self) -> None:
        self.file.close()

    def __enter__(self) -> "FeatureDataset":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.file)

    def __getitem__(self, i: int) -> Tensor | tuple[Tensor, np.generic]:
        return self.file[i] if self.labels is None else (self.file[i], self.labels[i])

    def __getitems__(self, indices: list[int]) -> list:
        """A batch, as a `DataLoader` asks for it: each chunk is decoded once."""
        z = self.file[indices]
        return list(z) if self.labels is None else list(zip(z, self.labels[indices], strict=True))
