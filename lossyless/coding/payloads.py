"""Arrays of floats and byte strings to bytes, and back, exactly.

A varint is an unsigned LEB128 of at most 63 bits. Payloads:

    encode_floats   varint N, varint D, zlib stream of the four byte planes of the values
    encode_blobs    varint count, count varint lengths, contents
"""

import math
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

INT32 = np.iinfo(np.int32)
MAX_DEFLATE_RATIO = 1032  # most decompressed bytes per byte of a deflate stream
MAX_VARINT_BYTES = 9


class CodingError(ValueError):
    """Symbols cannot be coded, or a payload is damaged or of another coder."""


def encode_floats(z: ArrayLike) -> bytes:
    """Payload of float32 values [N, D], exact to the bit, for rates without an entropy model."""
    z = np.asarray(z)
    if z.dtype != np.float32 or z.ndim != 2:
        raise CodingError(f"expected float32 values [N, D], found {z.dtype} {list(z.shape)}")
    # signs and exponents repeat more than mantissas: group bytes by significance
    planes = np.ascontiguousarray(z, "<f4").reshape(-1, 1).view(np.uint8).T
    return write_varint(z.shape[0]) + write_varint(z.shape[1]) + zlib.compress(planes.tobytes())


def decode_floats(data: bytes) -> NDArray[np.float32]:
    """Values [N, D] of a payload of `encode_floats`; raises CodingError if it is damaged."""
    n_examples, position = read_varint(data, 0)
    n_columns, position = read_varint(data, position)
    n_bytes = 4 * n_examples * n_columns
    if n_bytes > MAX_DEFLATE_RATIO * len(data) or max(n_examples, n_columns) > INT32.max:
        raise CodingError(f"{len(data)} bytes cannot hold {n_examples} x {n_columns} values")
    inflater = zlib.decompressobj()
    try:
        planes = inflater.decompress(data[position:], n_bytes + 1)
    except zlib.error as error:
        raise CodingError(f"damaged float payload: {error}") from error
    if len(planes) != n_bytes or not inflater.eof or inflater.unused_data:
        raise CodingError(f"expected {n_bytes} bytes of floats, found another number")
    values = np.frombuffer(planes, np.uint8).reshape(4, -1).T.copy().view("<f4")
    return values.astype(np.float32, copy=False).reshape(n_examples, n_columns)


class FloatCoder:
    """Coder of float32 values [N, n_columns], for rates without an entropy model."""

    def __init__(self, n_columns: int):
        self.n_columns = n_columns

    def encode(self, values: NDArray[np.float32]) -> bytes:
        return encode_floats(values)

    def decode(self, payload: bytes, n_examples: int) -> NDArray[np.float32]:
        """Values [n_examples, n_columns]. Raises `CodingError` on damage."""
        values = decode_floats(payload)
        if values.shape != (n_examples, self.n_columns):
            found = " x ".join(map(str, values.shape))
            raise CodingError(f"expected {n_examples} x {self.n_columns} values, found {found}")
        return values


class ArrayCoder:
    """Coder of arrays [N, *shape] as plain little-endian values, without any overhead."""

    def __init__(self, dtype: np.dtype, shape: tuple[int, ...]):
        self.dtype, self.shape = dtype, shape

    def encode(self, values: NDArray) -> bytes:
        return np.ascontiguousarray(values, self.dtype).tobytes()

    def decode(self, payload: bytes, n_examples: int) -> NDArray:
        """Values [n_examples, *shape]. Raises `CodingError` unless the size fits."""
        n_bytes = n_examples * math.prod(self.shape) * self.dtype.itemsize
        if len(payload) != n_bytes:
            raise CodingError(
                f"expected {n_bytes} bytes of {n_examples} examples {list(self.shape)}, found "
                f"{len(payload)}"
            )
        return np.frombuffer(payload, self.dtype).reshape(n_examples, *self.shape)


def encode_blobs(blobs: Sequence[bytes]) -> bytes:
    """Payload of byte strings, such as the images of a classical codec."""
    sizes = [len(blobs), *map(len, blobs)]
    return b"".join([*map(write_varint, sizes), *blobs])


def decode_blobs(data: bytes) -> list[bytes]:
    """Byte strings of a payload of `encode_blobs`; raises CodingError if it is damaged."""
    count, position = read_varint(data, 0)
    if count > len(data) - position:
        raise CodingError(f"{len(data)} bytes cannot hold {count} blobs")
    lengths = []
    for _ in range(count):
        length, position = read_varint(data, position)
        lengths.append(length)
    if position + sum(lengths) != len(data):
        raise CodingError(f"expected {sum(lengths)} bytes of blobs, found {len(data) - position}")
    ends = np.cumsum([position, *lengths]).tolist()
    return [data[start:end] for start, end in zip(ends[:-1], ends[1:], strict=True)]


def write_varint(value: int) -> bytes:
    """The varint of a non-negative value."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Value of the varint at `position`, and the position after it."""
    value = 0
    for i, byte in enumerate(data[position : position + MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, position + i + 1
    raise CodingError(f"no complete varint at byte {position} of {len(data)}")
