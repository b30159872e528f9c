"""What turns features into payloads, and payloads into features."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lossyless.base import Codec, SymbolCoder

MAX_CHUNK_VALUES = 1 << 24  # no chunk can ask for more: 64 MiB of float32, ten times to decode it


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
    coder = codec.coder()
    if coder is None:
        return ChunkCodec(_as_is, codec.compress, codec.decompress, _as_is, is_parallel=False)
    return ChunkCodec(
        lambda z: shrink(codec.quantise(z)),
        coder.encode,
        partial(_decode_small, coder),
        lambda symbols: codec.dequantise(_widen(symbols)),
        is_parallel=True,
    )


def shrink(symbols: NDArray[np.int32]) -> NDArray[np.signedinteger]:
    """The same integers in the smallest type that holds them: less to keep, and to hand on."""
    if symbols.dtype != np.int32:
        return symbols
    low, high = (int(symbols.min()), int(symbols.max())) if symbols.size else (0, 0)
    for dtype in (np.int8, np.int16):
        limits = np.iinfo(dtype)
        if limits.min <= low and high <= limits.max:
            return symbols.astype(dtype)
    return symbols


def _widen(symbols: NDArray) -> NDArray:
    return symbols.astype(np.int32) if symbols.dtype in (np.int8, np.int16) else symbols


def _decode_small(coder: SymbolCoder, payload: bytes, n_examples: int) -> NDArray:
    return shrink(coder.decode(payload, n_examples))


def _as_is(rows: Tensor) -> Tensor:
    return rows
