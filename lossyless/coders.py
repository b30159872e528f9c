"""Integer symbols and integer CDF tables to bytes, and back, exactly.

The coder is constriction's asymmetric numeral system (ANS) with models whose probabilities are
k / 65536, exact in float64, so that the bytes do not depend on the machine. All symbols of a call
share one stream: the tail of a stream is paid once per chunk of examples, not per example.

Payload of `TableCoder` (little endian; a varint is an unsigned LEB128 of at most 63 bits):

    varint  2 * n_stream + (1 if there are escapes else 0)
    varint  n_escapes, only if there are escapes, and then at least 1
    bytes   n_stream bytes: the uint32 words of the ANS stack without the zero bytes at its end
    int32   n_escapes values, in coding order

Coding order: with one table per column, column after column; with one table per symbol, table
after table, and in row-major order within a table. A symbol that its table does not list is coded
as the table's escape entry, and its value is one of the int32 at the end.

Payload of `encode_floats`: varint N, varint D, zlib stream of the four byte planes of the values.
Payload of `encode_blobs`: varint count, count varint lengths, contents.
"""

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import constriction
import numpy as np
from numpy.typing import ArrayLike, NDArray

AnsCoder = constriction.stream.stack.AnsCoder
Categorical = constriction.stream.model.Categorical

TOTAL_MASS = 1 << 16
ESCAPE_BITS = 32  # an escaped value is written as an int32
INT32 = np.iinfo(np.int32)
MAX_DEFLATE_RATIO = 1032  # the most bytes that one byte of a deflate stream can stand for
MAX_VARINT_BYTES = 9


class CodingError(ValueError):
    """The symbols cannot be coded, or the payload was not written by this coder or is damaged."""


@dataclass(frozen=True, eq=False)
class CDFTables:
    """Cumulative distributions of an entropy model, in CompressAI's layout.

    Attributes
    ----------
    cdfs : int32 [n_tables, max_length]
        Row t rises strictly from 0 to 65536 in its first `lengths[t]` values; the rest is padding.
    lengths : int32 [n_tables]
        Entry i of table t has the mass `cdfs[t, i + 1] - cdfs[t, i]`; the last of the
        `lengths[t] - 1` entries is the mass of all symbols that the table does not list.
    offsets : int32 [n_tables]
        Symbol of entry 0.
    """

    cdfs: NDArray[np.int32]
    lengths: NDArray[np.int32]
    offsets: NDArray[np.int32]
    _models: dict[int, Categorical] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for name, n_dims in (("cdfs", 2), ("lengths", 1), ("offsets", 1)):
            object.__setattr__(self, name, _int32_copy(getattr(self, name), n_dims, name))
        n_tables, max_length = self.cdfs.shape
        if not len(self.lengths) == len(self.offsets) == n_tables:
            raise CodingError(
                f"expected one length and one offset for each of the {n_tables} rows of cdfs, "
                f"found {len(self.lengths)} lengths and {len(self.offsets)} offsets"
            )
        in_row = np.arange(max_length) < self.lengths[:, None]
        last = self.lengths.astype(np.int64) - 1
        self.cdfs[~in_row] = TOTAL_MASS  # padding is not part of a table, nor of its fingerprint
        for t in range(n_tables):
            if not 2 <= self.lengths[t] <= max_length:
                raise CodingError(f"lengths[{t}] is {self.lengths[t]}, not in [2, {max_length}]")
            if self.cdfs[t, 0] != 0 or self.cdfs[t, last[t]] != TOTAL_MASS:
                raise CodingError(f"cdfs[{t}] does not go from 0 to {TOTAL_MASS}")
            if (np.diff(self.cdfs[t, : last[t] + 1]) <= 0).any():
                raise CodingError(f"cdfs[{t}] does not rise strictly: an entry has no mass")
        if (self.offsets + last > INT32.max).any():
            raise CodingError("offsets + lengths go beyond int32")
        for array in (self.cdfs, self.lengths, self.offsets):
            array.flags.writeable = False

    @classmethod
    def from_compressai(cls, entropy_model) -> "CDFTables":
        """Tables of a `compressai.entropy_models.EntropyModel` on which `update()` was called."""
        names = ("_quantized_cdf", "_cdf_length", "_offset")
        arrays = [getattr(entropy_model, name).detach().cpu().numpy() for name in names]
        if any(array.size == 0 for array in arrays):
            raise CodingError(
                f"{type(entropy_model).__name__} has no CDF tables: call its update() before coding"
            )
        return cls(*arrays)

    def __reduce__(self):
        """Copies and pickles hold the tables only: the models of constriction cannot be pickled."""
        return type(self), (self.cdfs, self.lengths, self.offsets)

    @property
    def n_tables(self) -> int:
        return len(self.lengths)

    @property
    def escapes(self) -> NDArray[np.int32]:
        """Escape entry of each table, which is also its number of listed symbols, [n_tables]."""
        return self.lengths - 2

    def fingerprint(self) -> bytes:
        """16 bytes that tell these tables from others (BLAKE2b)."""
        digest = hashlib.blake2b(digest_size=16)
        for array in (self.lengths, self.offsets, self.cdfs[self.cdfs < TOTAL_MASS]):
            digest.update(np.int64(array.size).astype("<i8").tobytes())
            digest.update(array.astype("<i4").tobytes())
        return digest.digest()

    def model(self, table: int) -> Categorical:
        """constriction's model over the entries of a table with at least two entries."""
        if table not in self._models:
            masses = np.diff(self.cdfs[table, : self.lengths[table]])
            self._models[table] = Categorical(masses / float(TOTAL_MASS), perfect=False)
        return self._models[table]

    def entries(self, symbols: NDArray[np.int32], index: NDArray[np.integer]) -> NDArray[np.int32]:
        """Table entry of each symbol; `index`, the table of each, broadcasts against `symbols`.

        As unsigned integers, symbols below the offset wrap to values above all entries, so that one
        minimum sends both sides to the escape entry.
        """
        relative = np.subtract(symbols, self.offsets[index], dtype=np.int32).view(np.uint32)
        escapes = self.escapes[index].view(np.uint32)
        return np.minimum(relative, escapes).view(np.int32)

    def information(self, symbols: ArrayLike, index: ArrayLike) -> NDArray[np.float64]:
        """Bits that each symbol costs, [N, D]; for an escaped one with the bits of its value.

        Arguments as for `TableCoder.encode`.
        """
        symbols = _check_symbols(symbols)
        index = _check_index(index, symbols.shape, self.n_tables)
        entries = self.entries(symbols, index)
        masses = self.cdfs[index, entries + 1] - self.cdfs[index, entries]
        n_bits = np.log2(TOTAL_MASS) - np.log2(masses)
        return n_bits + ESCAPE_BITS * (entries == self.escapes[index])


class _CodingOrder:
    """Order in which symbols [N, D] are coded, as runs (table, start, stop) of one table each.

    `index` [D]: a run per column, which needs no sort. `index` [N, D]: a run per table present.
    """

    def __init__(self, index: NDArray[np.integer], shape: tuple[int, int], n_tables: int):
        self.shape = shape
        n_examples, n_columns = shape
        if index.ndim == 1:
            self.order = None
            tables = index
            ends = np.arange(1, n_columns + 1) * n_examples
        else:
            # numpy sorts 8 and 16 bits stably by radix, several times faster than wider integers
            small = index.reshape(-1).astype(np.min_scalar_type(max(n_tables - 1, 0)))
            self.order = np.argsort(small, kind="stable")
            tables = np.arange(n_tables)
            ends = np.cumsum(np.bincount(small, minlength=n_tables))
        starts = [0, *ends[:-1].tolist()]
        runs = zip(tables.tolist(), starts, ends.tolist(), strict=False)
        self.runs = [run for run in runs if run[1] < run[2]]

    def flatten(self, array: NDArray) -> NDArray:
        """[N, D] to coding order [N * D]."""
        if self.order is None:
            return _transpose(array).reshape(-1)
        return array.reshape(-1)[self.order]

    def unflatten(self, flat: NDArray) -> NDArray:
        """Coding order [N * D] to [N, D]."""
        if self.order is None:
            return _transpose(flat.reshape(self.shape[::-1]))
        array = np.empty_like(flat)
        array[self.order] = flat
        return array.reshape(self.shape)

    def where(self, mask: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows and columns of the true values of a mask [N, D], in coding order."""
        if self.order is None:
            columns, rows = np.nonzero(mask.T)
            return rows, columns
        return np.divmod(self.order[self.flatten(mask)], self.shape[1])


class TableCoder:
    """Lossless coder of int32 symbols [N, D] with given tables; N and D may be 0.

    `index` names the table of each symbol: integers [D] (one table per column, as in a factorized
    prior) or [N, D] (one per symbol, as in a hyperprior). The decoder needs the same `index`.
    """

    def __init__(self, tables: CDFTables):
        self.tables = tables

    def encode(self, symbols: ArrayLike, index: ArrayLike) -> bytes:
        """Payload of integer `symbols` [N, D]. Raises CodingError for values beyond int32."""
        symbols = _check_symbols(symbols)
        index = _check_index(index, symbols.shape, self.tables.n_tables)
        order = _CodingOrder(index, symbols.shape, self.tables.n_tables)
        entries = self.tables.entries(symbols, index)
        escaped = entries == self.tables.escapes[index]
        values = symbols[order.where(escaped)] if escaped.any() else np.empty(0, np.int32)
        stream = self._encode_stream(order.flatten(entries), order)
        head = _varint(2 * len(stream) + bool(values.size))
        count = _varint(values.size) if values.size else b""
        return head + count + stream + values.astype("<i4").tobytes()

    def decode(
        self, data: bytes, index: ArrayLike, n_examples: int | None = None
    ) -> NDArray[np.int32]:
        """Symbols [N, D] of a payload of `encode`, with the `index` that it was encoded with.

        `n_examples` is N; it can be left out when `index` is [N, D].

        Raises
        ------
        CodingError
            `data` is damaged, or was not encoded with these tables, `index` and `n_examples`.
        """
        index = np.asarray(index)
        if index.ndim != 2 and n_examples is None:
            raise CodingError("n_examples is needed unless index is [N, D]")
        shape = (index.shape[0] if n_examples is None else n_examples, *index.shape[-1:])
        index = _check_index(index, shape, self.tables.n_tables)
        stream, values = _split_payload(data)
        order = _CodingOrder(index, shape, self.tables.n_tables)
        entries = order.unflatten(self._decode_stream(stream, order))
        symbols = entries + self.tables.offsets[index]
        escaped = entries == self.tables.escapes[index]
        n_escaped = int(np.count_nonzero(escaped))
        if n_escaped != len(values):
            raise CodingError(f"{n_escaped} symbols are escaped, the payload has {len(values)}")
        if n_escaped:
            where = order.where(escaped)
            tables = np.broadcast_to(index, shape)[where]
            if (self.tables.entries(values, tables) != self.tables.escapes[tables]).any():
                raise CodingError("a value is escaped although its table lists it")
            symbols[where] = values
        return symbols

    def _encode_stream(self, entries: NDArray[np.int32], order: _CodingOrder) -> bytes:
        coder = AnsCoder()
        for table, start, stop in reversed(order.runs):  # a stack: the last run comes out first
            if self.tables.escapes[table] > 0:  # else the table's only entry costs nothing
                coder.encode_reverse(entries[start:stop], self.tables.model(table))
        return coder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")

    def _decode_stream(self, stream: bytes, order: _CodingOrder) -> NDArray[np.int32]:
        words = np.frombuffer(stream + bytes(-len(stream) % 4), "<u4").astype(np.uint32)
        coder = AnsCoder(words)
        entries = np.zeros(order.shape[0] * order.shape[1], np.int32)
        for table, start, stop in order.runs:
            if self.tables.escapes[table] > 0:
                entries[start:stop] = coder.decode(self.tables.model(table), stop - start)
        if not coder.is_empty():
            raise CodingError(
                "the stream holds more than these symbols: damaged, or coded with other tables"
            )
        return entries


def encode_floats(z: ArrayLike) -> bytes:
    """Payload of float32 values [N, D], exact to the bit, for rates without an entropy model."""
    z = np.asarray(z)
    if z.dtype != np.float32 or z.ndim != 2:
        raise CodingError(f"expected float32 values [N, D], found {z.dtype} {list(z.shape)}")
    # neighbours agree in sign and exponent more often than in mantissa: group bytes of one kind
    planes = np.ascontiguousarray(z, "<f4").reshape(-1, 1).view(np.uint8).T
    return _varint(z.shape[0]) + _varint(z.shape[1]) + zlib.compress(planes.tobytes())


def decode_floats(data: bytes) -> NDArray[np.float32]:
    """Values [N, D] of a payload of `encode_floats`; raises CodingError if it is damaged."""
    n_examples, position = _read_varint(data, 0)
    n_columns, position = _read_varint(data, position)
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


def encode_blobs(blobs: Sequence[bytes]) -> bytes:
    """Payload of byte strings, such as the images that a classical codec wrote."""
    return b"".join([_varint(len(blobs)), *(_varint(len(blob)) for blob in blobs), *blobs])


def decode_blobs(data: bytes) -> list[bytes]:
    """Byte strings of a payload of `encode_blobs`; raises CodingError if it is damaged."""
    count, position = _read_varint(data, 0)
    if count > len(data) - position:
        raise CodingError(f"{len(data)} bytes cannot hold {count} blobs")
    lengths = []
    for _ in range(count):
        length, position = _read_varint(data, position)
        lengths.append(length)
    if position + sum(lengths) != len(data):
        raise CodingError(f"expected {sum(lengths)} bytes of blobs, found {len(data) - position}")
    ends = np.cumsum([position, *lengths]).tolist()
    return [data[start:end] for start, end in zip(ends[:-1], ends[1:], strict=True)]


def _split_payload(data: bytes) -> tuple[bytes, NDArray[np.int32]]:
    """ANS stream and escaped values of a payload of `TableCoder`."""
    head, position = _read_varint(data, 0)
    n_stream, has_escapes = head >> 1, head & 1
    n_escapes, position = _read_varint(data, position) if has_escapes else (0, position)
    end = position + n_stream
    if end + 4 * n_escapes != len(data) or bool(has_escapes) != bool(n_escapes):
        raise CodingError(
            f"expected {n_stream} bytes of stream and {n_escapes} escaped values, found "
            f"{len(data) - position} bytes"
        )
    if n_stream and data[end - 1] == 0:
        raise CodingError("the stream ends with a zero byte, which the encoder never writes")
    return data[position:end], np.frombuffer(data[end:], "<i4").astype(np.int32)


def _check_symbols(symbols: ArrayLike) -> NDArray[np.int32]:
    symbols = np.asarray(symbols)
    if symbols.ndim != 2 or not np.issubdtype(symbols.dtype, np.integer):
        raise CodingError(
            f"expected integer symbols [N, D], found {symbols.dtype} {list(symbols.shape)}"
        )
    if symbols.size and not INT32.min <= symbols.min() <= symbols.max() <= INT32.max:
        raise CodingError(f"symbols in [{symbols.min()}, {symbols.max()}] do not fit into int32")
    return symbols.astype(np.int32, copy=False)


def _check_index(index: ArrayLike, shape: tuple[int, ...], n_tables: int) -> NDArray[np.integer]:
    index = np.asarray(index)
    if index.size == 0:
        index = index.astype(np.int64)  # an empty list has no dtype of its own
    if len(shape) != 2 or shape[0] < 0 or index.shape not in (shape, shape[1:]):
        raise CodingError(
            f"expected index of shape {list(shape[1:])} or {list(shape)} for symbols of shape "
            f"{list(shape)}, found {list(index.shape)}"
        )
    if not np.issubdtype(index.dtype, np.integer):
        raise CodingError(f"expected integers in index, found {index.dtype}")
    if index.size and not 0 <= index.min() <= index.max() < n_tables:
        raise CodingError(
            f"index in [{index.min()}, {index.max()}], but there are {n_tables} tables"
        )
    return index


def _transpose(array: NDArray) -> NDArray:
    """Contiguous transpose, 32 rows at a time: two to three times faster than in one go."""
    transposed = np.empty(array.shape[::-1], array.dtype)
    for i in range(0, len(array), 32):
        transposed[:, i : i + 32] = array[i : i + 32].T
    return transposed


def _int32_copy(array: ArrayLike, n_dims: int, name: str) -> NDArray[np.int32]:
    array = np.asarray(array)
    if array.ndim != n_dims or not np.issubdtype(array.dtype, np.integer):
        raise CodingError(
            f"{name}: expected {n_dims}-D integers, found {array.dtype} {list(array.shape)}"
        )
    if array.size and not INT32.min <= array.min() <= array.max() <= INT32.max:
        raise CodingError(f"{name}: values do not fit into int32")
    return array.astype(np.int32, order="C", copy=True)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Value of the varint at `position`, and the position after it."""
    value = 0
    for i, byte in enumerate(data[position : position + MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, position + i + 1
    raise CodingError(f"no complete varint at byte {position} of {len(data)}")
