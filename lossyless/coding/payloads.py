"""Exact coding of arrays and byte strings.

A varint is an unsigned LEB128 of at most 63 bits.
"""

import math
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

INT32 = np.iinfo(np.int32)
MAX_VARINT_BYTES = 9


class CodingError(ValueError):
    """Symbols cannot be coded, or a payload is damaged or was written by another coder."""


class FloatCoder:
    """Bit-exact coder for float32 values [N, n_columns], without an entropy model.

    Payload: varint N, varint n_columns, zlib stream of the four byte planes of the values.
    """

    def __init__(self, n_columns: int):
        self.n_columns = n_columns

    def encode(self, values: NDArray[np.float32]) -> bytes:
        if values.shape[1:] != (self.n_columns,) or values.dtype != np.float32:
            raise CodingError(
                f"expected float32 values [N, {self.n_columns}], found {values.dtype} "
                f"{[*values.shape]}"
            )
        # signs and exponents repeat more often than mantissas: group bytes by significance
        planes = np.ascontiguousarray(values, "<f4").reshape(-1, 1).view(np.uint8).T
        head = write_varint(len(values)) + write_varint(self.n_columns)
        return head + zlib.compress(planes.tobytes())

    def decode(self, payload: bytes, n_examples: int) -> NDArray[np.float32]:
        """Decode values [n_examples, n_columns]. Raises `CodingError` if the payload is damaged."""
        n_rows, position = read_varint(payload, 0)
        n_columns, position = read_varint(payload, position)
        if (n_rows, n_columns) != (n_examples, self.n_columns):
            raise CodingError(
                f"expected {n_examples} x {self.n_columns} values, found {n_rows} x {n_columns}"
            )
        inflater = zlib.decompressobj()
        try:
            planes = inflater.decompress(payload[position:])
        except zlib.error as error:
            raise CodingError(f"damaged float payload: {error}") from error
        if len(planes) != 4 * n_rows * n_columns or not inflater.eof or inflater.unused_data:
            raise CodingError(f"float payload does not inflate to {4 * n_rows * n_columns} bytes")
        values = np.frombuffer(planes, np.uint8).reshape(4, -1).T.copy().view("<f4")
        return values.astype(np.float32, copy=False).reshape(n_rows, n_columns)


class ArrayCoder:
    """Coder that stores arrays [N, *shape] as plain little-endian values, without any overhead."""

    def __init__(self, dtype: np.dtype, shape: tuple[int, ...]):
        self.dtype, self.shape = dtype, shape

    def encode(self, values: NDArray) -> bytes:
        return np.ascontiguousarray(values, self.dtype).tobytes()

    def decode(self, payload: bytes, n_examples: int) -> NDArray:
        """Decode values [n_examples, *shape]. Raises `CodingError` if the size is wrong."""
        n_bytes = n_examples * math.prod(self.shape) * self.dtype.itemsize
        if len(payload) != n_bytes:
            raise CodingError(
                f"expected {n_bytes} bytes for {n_examples} examples of shape {list(self.shape)}, "
                f"found {len(payload)}"
            )
        return np.frombuffer(payload, self.dtype).reshape(n_examples, *self.shape)


def encode_blobs(blobs: Sequence[bytes]) -> bytes:
    """Encode byte strings, such as image files: varint count, varint lengths, contents."""
    sizes = [len(blobs), *map(len, blobs)]
    return b"".join([*map(write_varint, sizes), *blobs])


def decode_blobs(data: bytes) -> list[bytes]:
    """Decode byte strings from `encode_blobs`. Raises `CodingError` if lengths do not match."""
    count, position = read_varint(data, 0)
    lengths = []
    for _ in range(count):
        length, position = read_varint(data, position)
        lengths.append(length)
    if position + sum(lengths) != len(data):
        raise CodingError(f"expected {sum(lengths)} bytes of blobs, found {len(data) - position}")
    blobs = []
    for length in lengths:
        blobs.append(data[position : position + length])
        position += length
    return blobs


def write_varint(value: int) -> bytes:
    """Encode a non-negative value as a varint."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Read the varint at `position`; return its value and the position after it."""
    value = 0
    for i, byte in enumerate(data[position : position + MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, position + i + 1
    raise CodingError(f"no complete varint at byte {position} of {len(data)}")
