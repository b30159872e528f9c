"""Decoding files in the official format, as `FeatureFile` does it for containers."""

import os
from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from lossyless.coding.payloads import CodingError
from lossyless.container.format import UNKNOWN_LABELS
from lossyless.hub.official import OfficialCoder
from lossyless.hub.official_format import read_official

BATCH_SIZE = 4096  # vectors that are decoded at once


class OfficialFile:
    """A file of the paper's code: a stream for each vector, read from the front to the end.

    Parameters
    ----------
    path : the file.
    coder : of the bottleneck that wrote it; the format does not say which that was.
    """

    #: what was skipped: nothing, because the format cannot tell what is damaged
    missing, damaged = np.empty(0, np.int64), ()
    #: the format has no place for it
    labels_checksum = UNKNOWN_LABELS

    def __init__(self, path: str | os.PathLike, coder: OfficialCoder):
        self.path = path
        self.coder = coder

    def chunks(self, n_workers: int | None = None) -> Iterator[tuple[int, Tensor]]:
        """Index of the first vector, and vectors [n, z_dim]. `n_workers` makes no difference.

        Raises
        ------
        ContainerError, CodingError
            The file is damaged or foreign; the message names it, and the vector.
        """
        streams = read_official(self.path)
        first = 0
        while batch := list(islice(streams, BATCH_SIZE)):
            try:
                z_hat = self.coder.decode(batch, first=first)
            except CodingError as error:
                raise CodingError(f"{self.path}: {error}") from error
            yield first, z_hat
            first += len(batch)

    def read(self, n_workers: int | None = None) -> Tensor:
        """All vectors [N, z_dim]."""
        chunks = [z_hat for _, z_hat in self.chunks()]
        return torch.cat(chunks) if chunks else self.coder.decode([])

    def __enter__(self) -> "OfficialFile":
        return self

    def __exit__(self, error_type, error, traceback) -> None:
        pass
