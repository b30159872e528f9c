"""What turns features into payloads, and payloads into features."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lossyless.coding.ans import ColumnCoder

MAX_CHUNK_VALUES = 1 << 24  # no chunk can ask for more: 64 MiB of float32, ten times to decode it


@runtime_checkable
class Codec(Protocol):
    """A rate, as files need it: `codec` and `fingerprint` go to the header."""

    codec: str
    z_dim: int

    def fingerprint(self) -> str: ...
    def compress(self, z: Tensor) -> bytes: ...
    def decompress(self, payload: bytes, n_examples: int) -> Tensor: ...


@runtime_checkable
class SymbolCodec(Codec, Protocol):
    """A codec in two steps: the network's, and the entropy coder's, which worker processes can run.

    `quantise`: features [N, z_dim] to symbols int32 [N, z_dim]; `dequantise`: symbols to features,
    float32 on the CPU, row by row: the same for any subset of rows. `coder`: symbols to bytes.
    """

    def quantise(self, z: Tensor) -> NDArray[np.int32]: ...
    def dequantise(self, symbols: NDArray[np.int32]) -> Tensor: ...
    def coder(self) -> ColumnCoder: ...


class ChunkCodec(NamedTuple):
    """How chunks of one file are coded, in two halves.

    The main process runs `prepare` and `to_features`; `encode` and `decode` may run in workers.
    """

    #: features [n, D] to what `encode` takes
    prepare: Callable[[Tensor], NDArray | Tensor]
    encode: Callable[[NDArray | Tensor], bytes]
    #: payload and number of examples to rows
    decode: Callable[[bytes, int], NDArray | Tensor]
    #: rows of `decode`, or any selection of them, to features float32 [n, D]
    to_features: Callable[[NDArray | Tensor], Tensor]
    is_parallel: bool


def chunk_codec(codec: Codec) -> ChunkCodec:
    """The two halves of a codec."""
    if not isinstance(codec, SymbolCodec):
        return ChunkCodec(_as_is, codec.compress, codec.decompress, _as_is, is_parallel=False)
    coder = codec.coder()
    return ChunkCodec(
        lambda z: shrink(codec.quantise(z)),
        coder.encode,
        partial(_decode_small, coder),
        lambda symbols: codec.dequantise(symbols.astype(np.int32, copy=False)),
        is_parallel=True,
    )


def shrink(symbols: NDArray[np.int32]) -> NDArray[np.signedinteger]:
    """The same integers in the smallest type that holds them: less to keep, and to hand on."""
    low, high = (int(symbols.min()), int(symbols.max())) if symbols.size else (0, 0)
    for dtype in (np.int8, np.int16):
        limits = np.iinfo(dtype)
        if limits.min <= low and high <= limits.max:
            return symbols.astype(dtype)
    return symbols


def _decode_small(coder: ColumnCoder, payload: bytes, n_examples: int) -> NDArray:
    return shrink(coder.decode(payload, n_examples))


def _as_is(rows: Tensor) -> Tensor:
    return rows
