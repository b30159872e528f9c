"""Streams and files in the format of the paper's code: to exchange data with it.

Each vector is a stream of its own, of CompressAI's rANS coder, with the tables that CompressAI
makes from the quantiles in the weights. A file (big endian):

    u32     number of streams
    u32 ..  per stream: number of bytes, and as many bytes

There are no checksums. Most changed bits show all the same, because only intact streams lead the
decoder to the state in which the encoder began (31 bits). But the digits of symbols beyond the
tables are written as they are: a change there shows nowhere.
"""

import copy
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

import numpy as np
from compressai.ans import RansDecoder, RansEncoder
from torch import Tensor

from lossyless.cdf_tables import CDFTables
from lossyless.container import ContainerError
from lossyless.container.temporary import replacing
from lossyless.payloads import CodingError
from lossyless.rates import HFactorized

UINT32 = struct.Struct(">I")
WORD = 4  # bytes; streams are words, and at least the coder's final state of two of them
MIN_STREAM = 2 * WORD
MAX_SYMBOL = 1 << 26  # CompressAI's encoder never returns for values of 2^27 and beyond
MAX_SYMBOL_BYTES = 8  # an entry of 16 bits, and at most 8 nibbles of an escaped value and its size
MAX_STREAM = 1 << 30  # no vector has that many bytes: the length of a stream is damaged


class OfficialCoder:
    """Coder of single vectors, byte for byte that of CompressAI's `EntropyBottleneck`.

    CompressAI converts all tables, padded to the longest one, for each vector; here that is done
    once, and without the padding.

    Parameters
    ----------
    rate : its quantiles give the tables, whatever tables it has itself.
    """

    def __init__(self, rate: HFactorized):
        self.rate = rate
        model = copy.deepcopy(rate.prior).cpu().float()
        model.update(force=True)
        self.tables = CDFTables.from_compressai(model)
        rows = zip(self.tables.cdfs, self.tables.lengths, strict=True)
        self._model = (
            list(range(rate.z_dim)),
            [cdf[:length].tolist() for cdf, length in rows],
            self.tables.lengths.tolist(),
            self.tables.offsets.tolist(),
        )

    def encode(self, z: Tensor) -> list[bytes]:
        """A stream for each of the representations z [N, z_dim]."""
        symbols = self.rate.quantise(z)
        if symbols.size and np.abs(symbols.astype(np.int64)).max() > MAX_SYMBOL:
            raise CodingError(f"the official format cannot hold symbols beyond {MAX_SYMBOL}")
        return [self._encode(row) for row in symbols.tolist()]

    def decode(self, streams: Sequence[bytes]) -> Tensor:
        """z_hat [N, z_dim], float32 on the CPU.

        Raises
        ------
        CodingError
            A stream, which the message counts from 0, is damaged or was made with other tables.
        """
        symbols = np.empty((len(streams), self.rate.z_dim), np.int32)
        for i, stream in enumerate(streams):
            try:
                symbols[i] = self._decode(stream)
            except CodingError as error:
                raise CodingError(f"vector {i}: {error}") from error
        return self.rate.dequantise(symbols)

    def _encode(self, symbols: list[int]) -> bytes:
        return RansEncoder().encode_with_indexes(symbols, *self._model)

    def _decode(self, stream: bytes) -> list[int]:
        longest = MIN_STREAM + MAX_SYMBOL_BYTES * self.rate.z_dim
        if len(stream) % WORD or not MIN_STREAM <= len(stream) <= longest:
            raise CodingError(
                f"a stream of {len(stream)} bytes is none of {self.rate.z_dim} values"
            )
        # CompressAI reads on beyond the end of a damaged stream. It reads at most a word per symbol
        # and per nibble, and each of a stream's nibbles can announce 15 others.
        n_nibbles = 16 * 2 * len(stream)
        padding = bytes(WORD * (self.rate.z_dim + n_nibbles))
        symbols = RansDecoder().decode_with_indexes(stream + padding, *self._model)
        if max(map(abs, symbols)) > MAX_SYMBOL or self._encode(symbols) != stream:
            raise CodingError("the stream is damaged, or was made with another entropy model")
        return symbols


def write_official(path: str | os.PathLike, streams: Iterable[bytes]) -> int:
    """Write a file, atomically and in constant memory; the number of streams."""
    n_streams = 0
    with replacing(path) as file:
        file.write(UINT32.pack(0))
        for stream in streams:
            file.write(UINT32.pack(len(stream)) + stream)
            n_streams += 1
        file.seek(0)
        file.write(UINT32.pack(n_streams))
    return n_streams


def read_official(path: str | os.PathLike) -> Iterator[bytes]:
    """The streams of a file, one after the other.

    Raises
    ------
    ContainerError
        The file is cut, longer than its streams, or foreign.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        n_streams = _read_uint32(file, path, "the number of vectors")
        for i in range(n_streams):
            length = _read_uint32(file, path, f"the size of vector {i} of {n_streams}")
            if not MIN_STREAM <= length <= size - file.tell():
                raise ContainerError(
                    f"{path}: vector {i} of {n_streams} would have {length} bytes of the "
                    f"{size - file.tell()} left: the file is cut, damaged, or in another format"
                )
            yield file.read(length)
        if file.tell() != size:
            raise ContainerError(
                f"{path}: {size - file.tell()} bytes follow the {n_streams} vectors: the file is "
                "damaged, or in another format"
            )


def is_official(path: str | os.PathLike) -> bool:
    """Whether a file looks like one in this format; a damaged one may, a container does not.

    Looks at the number of streams and the size of the first.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(2 * UINT32.size)
    if len(head) < 2 * UINT32.size:
        return head == UINT32.pack(0)
    n_streams, length = (value for (value,) in UINT32.iter_unpack(head))
    is_stream = length % WORD == 0 and MIN_STREAM <= length < MAX_STREAM
    return is_stream and 1 <= n_streams <= size // UINT32.size


def _read_uint32(file: BinaryIO, path: str | os.PathLike, what: str) -> int:
    data = file.read(UINT32.size)
    if len(data) < UINT32.size:
        raise ContainerError(f"{path}: ends before {what}: the file is cut")
    return UINT32.unpack(data)[0]
