"""Files as data sets of torch."""

import os

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import Dataset

from lossyless.feature_files.codecs import Codec
from lossyless.feature_files.reading import FeatureFile


class FeatureDataset(Dataset):
    """The features of a file for a `DataLoader`: z [D], or (z, label).

    Chunks are decoded when they are needed, and the last ones kept. Access in random order decodes
    a chunk for nearly every example once the file outgrows the cache: then read the whole file, or
    write it in smaller chunks.

    Parameters
    ----------
    path, codec : see `FeatureFile`.
    labels : one per example.

    Raises
    ------
    ContainerError, CodingError
        As `FeatureFile` does.
    """

    def __init__(self, path: str | os.PathLike, codec: Codec, labels: ArrayLike | None = None):
        self.file = FeatureFile(path, codec)
        self.labels = None if labels is None else np.asarray(labels)
        if labels is not None and len(self.labels) != len(self.file):
            raise ValueError(
                f"{path}: has {len(self.file)} examples, but {len(self.labels)} labels were given"
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
        """A batch at once, which a `DataLoader` asks for: each chunk is decoded once."""
        z = self.file[indices]
        return list(z) if self.labels is None else list(zip(z, self.labels[indices], strict=True))
