"""Streams and files in the format of the paper's code, byte for byte.

CompressAI's rANS coder codes each vector as a separate stream, with the tables that CompressAI
computes from the quantiles in the weights. Files are big-endian:

    u32     number of streams
    u32 ..  per stream: number of bytes, and the bytes

There are no checksums. Most bit errors are detected nevertheless, because decoding a damaged stream
rarely ends in the encoder's initial state (31 bits). However, symbols outside the tables are stored
verbatim, and errors in them go unnoticed.
"""

import copy
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lossyless._compressai import RansDecoder, RansEncoder
from lossyless.atomic import replacing
from lossyless.coding.payloads import CodingError
from lossyless.coding.tables import CDFTables
from lossyless.files import ContainerError
from lossyless.rates import HFactorized
from lossyless.torch_state import isolated

UINT32 = struct.Struct(">I")
WORD = 4  # bytes; two words of each stream are the coder's final state
MIN_STREAM = 2 * WORD
MAX_STREAM = 1 << 30  # bytes
MAX_SYMBOL = 1 << 26  # CompressAI's encoder loops forever on symbols of 2^27 or more
MAX_SYMBOL_BYTES = 8  # 16 bits for the escape entry, then the 4-bit groups of the length and value
BATCH_SIZE = 4096  # vectors decoded at once


class OfficialCoder:
    """Coder for single vectors; its streams are those of CompressAI's `EntropyBottleneck`.

    CompressAI converts all tables to lists for each vector; this class does so only once.

    Parameters
    ----------
    rate : the bottleneck. Tables are computed from its quantiles; its own tables are not used.
    """

    @isolated
    def __init__(self, rate: HFactorized):
        self.rate = rate
        self.bottleneck = copy.deepcopy(rate.prior).cpu().float()  # CompressAI's model
        self.bottleneck.update(force=True)
        self.tables = CDFTables.from_compressai(self.bottleneck)
        rows = zip(self.tables.cdfs, self.tables.lengths, strict=True)
        self._model = (
            list(range(rate.z_dim)),
            [cdf[:length].tolist() for cdf, length in rows],
            self.tables.lengths.tolist(),
            self.tables.offsets.tolist(),
        )

    def encode(self, z: Tensor | NDArray) -> list[bytes]:
        """Encode each row of z [N, z_dim], of any floating-point type, as a separate stream."""
        if not isinstance(z, Tensor):
            z = torch.from_numpy(np.array(z, np.float32))  # a copy, because arrays may be read-only
        symbols = self.rate.quantise(z.cpu())
        if symbols.size and np.abs(symbols.astype(np.int64)).max() > MAX_SYMBOL:
            raise CodingError(f"the official format cannot store symbols beyond {MAX_SYMBOL}")
        return [self._encode(row) for row in symbols.tolist()]

    def decode(self, streams: Sequence[bytes], *, first: int = 0) -> Tensor:
        """Decode streams to z_hat [N, z_dim], float32 on the CPU.

        first : index of the first stream, for error messages.

        Raises CodingError, naming the index, if a stream is damaged or was written with different
        tables.
        """
        symbols = np.empty((len(streams), self.rate.z_dim), np.int32)
        for i, stream in enumerate(streams):
            try:
                symbols[i] = self._decode(stream)
            except CodingError as error:
                raise CodingError(f"vector {first + i}: {error}") from error
        return self.rate.dequantise(symbols)

    def _encode(self, symbols: list[int]) -> bytes:
        return RansEncoder().encode_with_indexes(symbols, *self._model)

    def _decode(self, stream: bytes) -> list[int]:
        longest = MIN_STREAM + MAX_SYMBOL_BYTES * self.rate.z_dim
        if len(stream) % WORD or not MIN_STREAM <= len(stream) <= longest:
            raise CodingError(f"{len(stream)} bytes are not a stream of {self.rate.z_dim} values")
        # CompressAI reads beyond the end of a damaged stream: at most a word per symbol and per
        # 4-bit group, and each group of the stream can announce 15 others
        n_nibbles = 16 * 2 * len(stream)
        padding = bytes(WORD * (self.rate.z_dim + n_nibbles))
        symbols = RansDecoder().decode_with_indexes(stream + padding, *self._model)
        if max(map(abs, symbols)) > MAX_SYMBOL or self._encode(symbols) != stream:
            raise CodingError("the stream is damaged, or was written with another entropy model")
        return symbols


class OfficialFile(AbstractContextManager):
    """A file in the official format, with those methods of `FeatureFile` that read the whole file.

    `coder`, needed only for decoding, belongs to the bottleneck that wrote the file. Raises
    ContainerError if the file is truncated, longer than its streams, or in another format.
    """

    names = None
    # nothing is ever skipped, because damage cannot be located
    missing, damaged = np.empty(0, np.int64), ()

    def __init__(self, path: str | os.PathLike, coder: OfficialCoder | None = None):
        self.name = os.fspath(path)
        self.coder = coder
        self.streams = read_official(path)

    def __exit__(self, *exception) -> None:
        """Do nothing: the file was already read and closed."""

    def __len__(self) -> int:
        return len(self.streams)

    def describe(self) -> dict[str, Any]:
        """Return properties of the file, as in `CompressedFile.describe`."""
        n_bytes, n_examples = os.path.getsize(self.name), len(self)
        return {
            "path": self.name,
            "format": "official (that of the paper's code), without checksums or a fingerprint",
            "n_examples": n_examples,
            "n_bytes": n_bytes,
            "bits_per_example": 8 * n_bytes / n_examples if n_examples else None,
        }

    @property
    def indices(self) -> NDArray[np.int64]:
        """Indices of the vectors that `read` returns, [N]."""
        return np.arange(len(self))

    def chunks(self, n_workers: int | None = None) -> Iterator[tuple[int, Tensor]]:
        """Yield batches: index of the first vector, and vectors [n, z_dim]. `n_workers` is ignored.

        Raises CodingError, naming the vector, if its stream is damaged or another model wrote it.
        """
        for first in range(0, len(self), BATCH_SIZE):
            try:
                z_hat = self.coder.decode(self.streams[first : first + BATCH_SIZE], first=first)
            except CodingError as error:
                raise CodingError(f"{self.name}: {error}") from error
            yield first, z_hat

    def read(self, n_workers: int | None = None) -> Tensor:
        """Decode all vectors [N, z_dim]."""
        return torch.cat([self.coder.decode([]), *(z_hat for _, z_hat in self.chunks())])


def write_official(path: str | os.PathLike, streams: Iterable[bytes]) -> int:
    """Write a file, atomically and in constant memory; return the number of streams."""
    n_streams = 0
    with replacing(path) as file:
        file.write(UINT32.pack(0))
        for stream in streams:
            file.write(UINT32.pack(len(stream)) + stream)
            n_streams += 1
        file.seek(0)
        file.write(UINT32.pack(n_streams))
    return n_streams


def read_official(path: str | os.PathLike) -> list[bytes]:
    """Read the streams from a file.

    Raises ContainerError if the file is truncated, longer than its streams, or in another format.
    """
    data = Path(path).read_bytes()
    n_streams, position, streams = int.from_bytes(data[:4]), 4, []
    for i in range(n_streams):
        length, position = int.from_bytes(data[position : position + 4]), position + 4
        if not MIN_STREAM <= length <= len(data) - position:
            raise ContainerError(
                f"{path}: vector {i} of {n_streams} would have {length} bytes, but "
                f"{max(0, len(data) - position)} are left: the file is truncated, damaged, or in "
                "another format"
            )
        streams.append(data[position : position + length])
        position += length
    if position != len(data):
        raise ContainerError(
            f"{path}: has {len(data)} bytes, but its {n_streams} vectors end at byte {position}: "
            "the file is truncated, damaged, or in another format"
        )
    return streams


def is_official(path: str | os.PathLike) -> bool:
    """Whether the number of streams and the size of the first stream are plausible.

    Also true for most damaged files in this format; false for files written by `lossyless.files`.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(2 * UINT32.size)
    if len(head) < 2 * UINT32.size:
        return head == UINT32.pack(0)
    n_streams, length = (value for (value,) in UINT32.iter_unpack(head))
    is_stream = length % WORD == 0 and MIN_STREAM <= length < MAX_STREAM
    return is_stream and 1 <= n_streams <= size // UINT32.size
