"""Entropy coder for integer symbols with integer CDF tables, exact on every machine.

It uses constriction's ANS coder (asymmetric numeral systems). Probabilities are k / 65536, which
float64 represents exactly, so the bytes do not depend on the machine. Each call writes a single
stream, so the stream's overhead is paid once per chunk rather than once per example.

Payload (a varint is an unsigned LEB128 of at most 63 bits):

    varint  2 * n_stream + (1 if there are escapes else 0)
            then, only if there are escapes:
    varint  0
    uint8   e: escape entries have a mass of at least 2^e, see `CDFTables.with_escape_mass`
    uint8   k: order of the escape codes, see `escapes`
    varint  n_escapes >= 1
            then, always:
    bytes   n_stream bytes: the words of the ANS stack, uint32 little-endian, without trailing zero
            bytes
    bytes   escape codes, in coding order

See `order` for the coding order. A symbol v outside the range [first, stop) that its table lists is
coded as the table's escape entry in the stream, plus an escape code for its distance r from that
range:

    r = 2 (v - stop)  if v >= stop,  else  2 (first - 1 - v) + 1

Older payloads lack the zero, e and k, and end with the escaped values as int32 (little-endian)
instead of escape codes.
"""

from typing import NamedTuple

import constriction
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lossyless.coding.escapes import best_order, code_lengths, decode_escapes, encode_escapes
from lossyless.coding.order import CodingOrder
from lossyless.coding.payloads import INT32, CodingError, read_varint, write_varint
from lossyless.coding.tables import TOTAL_MASS, CDFTables

AnsCoder = constriction.stream.stack.AnsCoder

MAX_EXPONENT = 15  # an escape's minimum mass is at most half of the total


class TableCoder:
    """Lossless coder for int32 symbols [N, D] with given tables; N and D may be 0.

    `index` gives the table of each symbol: integers [D] (one table per column, as in a factorized
    prior), or [N, D] (one per symbol, as in a hyperprior). By default, column d uses table d. The
    decoder needs the same `index`.

    The coder does not use torch, so worker processes can run it.
    """

    def __init__(self, tables: CDFTables):
        self.tables = tables

    def encode(self, symbols: ArrayLike, index: ArrayLike | None = None) -> bytes:
        """Encode integer `symbols` [N, D]. Raises CodingError unless they fit into int32."""
        symbols = _check_symbols(symbols)
        index = self._index(index)
        order = CodingOrder(index, symbols.shape, self.tables.n_tables)
        entries = self._entries(symbols, index)
        escaped = entries == self.tables.escapes[index]
        if not escaped.any():
            stream = _encode_stream(order.flatten(entries), order, self.tables)
            return write_varint(2 * len(stream)) + stream
        where = order.where(escaped)
        escaped_index = np.broadcast_to(index, symbols.shape)[where]
        distances = self._distances(symbols[where], escaped_index)
        n_symbols = self._counts(index) * (symbols.size // index.size)
        e = self._best_exponent(n_symbols, self._counts(escaped_index))
        k = best_order(distances)
        tables = self.tables.with_escape_mass(1 << e)
        stream = _encode_stream(order.flatten(entries), order, tables)
        head = [write_varint(2 * len(stream) + 1), bytes([0, e, k]), write_varint(len(distances))]
        return b"".join([*head, stream, encode_escapes(distances, k)])

    def decode(
        self, payload: bytes, n_examples: int, index: ArrayLike | None = None
    ) -> NDArray[np.int32]:
        """Decode a payload written by `encode` to symbols, int32 [n_examples, D].

        Raises CodingError if the payload is found to be damaged, or encoded with other tables,
        `index` or `n_examples`. Not every such payload can be detected.
        """
        n_columns = self.tables.n_tables if index is None else np.shape(index)[-1]
        shape = (n_examples, n_columns)
        index = self._index(index)
        stream, escapes = _split_payload(payload)
        order = CodingOrder(index, shape, self.tables.n_tables)
        tables = self.tables.with_escape_mass(escapes.mass)
        entries = order.unflatten(_decode_stream(stream, order, tables))
        symbols = entries + self.tables.offsets[index]
        escaped = entries == self.tables.escapes[index]
        n_escaped = int(np.count_nonzero(escaped))
        if n_escaped != escapes.count:
            raise CodingError(f"decoded {n_escaped} escapes, but the payload has {escapes.count}")
        if n_escaped:
            where = order.where(escaped)
            symbols[where] = self._decode_escapes(escapes, np.broadcast_to(index, shape)[where])
        return symbols

    def information(
        self, symbols: ArrayLike, index: ArrayLike | None = None
    ) -> NDArray[np.float64]:
        """Compute the bits that each symbol [N, D] takes under the tables, including escape codes.

        A payload of all these symbols takes about the sum of their bits, or less if many escape.
        """
        symbols = _check_symbols(symbols)
        index = np.broadcast_to(self._index(index), symbols.shape)
        entries = self._entries(symbols, index)
        masses = self.tables.cdfs[index, entries + 1] - self.tables.cdfs[index, entries]
        n_bits = np.log2(TOTAL_MASS) - np.log2(masses)
        escaped = entries == self.tables.escapes[index]
        distances = self._distances(symbols[escaped], index[escaped])
        n_bits[escaped] += code_lengths(distances, best_order(distances))
        return n_bits

    def _index(self, index: ArrayLike | None) -> NDArray[np.integer]:
        return np.arange(self.tables.n_tables) if index is None else np.asarray(index)

    def _counts(self, index: NDArray[np.integer]) -> NDArray[np.int64]:
        """How often each table is used, [n_tables]."""
        return np.bincount(index.reshape(-1), minlength=self.tables.n_tables)

    def _best_exponent(self, n_symbols: NDArray[np.int64], n_escapes: NDArray[np.int64]) -> int:
        """The e that needs the fewest bits, given each table's counts of symbols and escapes."""
        own = np.take_along_axis(np.diff(self.tables.cdfs), self.tables.escapes[:, None], axis=1)
        masses = np.maximum(own, 1 << np.arange(MAX_EXPONENT + 1))
        # if a table lists no symbol, its escape has the total mass
        left = (TOTAL_MASS - masses) / np.maximum(TOTAL_MASS - own, 1)
        n_bits = -(n_escapes @ np.log2(masses)) - (n_symbols - n_escapes) @ np.log2(
            np.where(left > 0, left, 1)
        )
        return int(np.argmin(n_bits))

    def _entries(self, symbols: NDArray[np.int32], index: NDArray[np.integer]) -> NDArray[np.int32]:
        """Table entry of each symbol.

        Symbols below the offset wrap around to unsigned integers above all entries, so a single
        minimum maps symbols on either side of the listed range to the escape entry.
        """
        relative = np.subtract(symbols, self.tables.offsets[index], dtype=np.int32).view(np.uint32)
        escapes = self.tables.escapes[index].view(np.uint32)
        return np.minimum(relative, escapes).view(np.int32)

    def _distances(
        self, values: NDArray[np.int32], tables: NDArray[np.integer]
    ) -> NDArray[np.int64]:
        """Distance r of each escaped value [n] from the symbols that its table lists."""
        first = self.tables.offsets[tables].astype(np.int64)
        above = values - first - self.tables.escapes[tables]
        return np.where(above >= 0, 2 * above, 2 * (first - 1 - values) + 1)

    def _decode_escapes(
        self, escapes: "_Escapes", tables: NDArray[np.integer]
    ) -> NDArray[np.integer]:
        """Decode the escaped values [n], given their tables [n]."""
        if escapes.order is None:
            values = np.frombuffer(escapes.data, "<i4").astype(np.int32)
            if (self._entries(values, tables) != self.tables.escapes[tables]).any():
                raise CodingError("a value is escaped although its table lists it")
            return values
        distances = decode_escapes(escapes.data, escapes.order, escapes.count)
        first = self.tables.offsets[tables].astype(np.int64)
        half = distances >> 1
        is_above = distances % 2 == 0
        values = np.where(is_above, first + self.tables.escapes[tables] + half, first - 1 - half)
        if values.min() < INT32.min or values.max() > INT32.max:
            raise CodingError("an escaped value does not fit into int32")
        return values


class _Escapes(NamedTuple):
    """The escapes in a payload."""

    mass: int  # minimum mass of the tables' escape entries
    order: int | None  # order k of the codes in `data`; None if `data` holds int32 values
    count: int
    data: bytes


def _encode_stream(entries: NDArray[np.int32], order: CodingOrder, tables: CDFTables) -> bytes:
    coder = AnsCoder()
    for table, start, stop in reversed(order.runs):  # a stack is decoded in reverse
        if tables.escapes[table] > 0:  # otherwise, the table's only entry costs nothing
            coder.encode_reverse(entries[start:stop], tables.model(table))
    return coder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")


def _decode_stream(stream: bytes, order: CodingOrder, tables: CDFTables) -> NDArray[np.int32]:
    words = np.frombuffer(stream + bytes(-len(stream) % 4), "<u4").astype(np.uint32)
    coder = AnsCoder(words)
    entries = np.zeros(order.shape[0] * order.shape[1], np.int32)
    for table, start, stop in order.runs:
        if tables.escapes[table] > 0:
            entries[start:stop] = coder.decode(tables.model(table), stop - start)
    if not coder.is_empty():
        raise CodingError(
            "the stream holds extra symbols: it is damaged, or was coded with other tables"
        )
    return entries


def _split_payload(payload: bytes) -> tuple[bytes, _Escapes]:
    """Split a payload into its ANS stream and its escapes."""
    head, position = read_varint(payload, 0)
    n_stream, has_escapes = head >> 1, head & 1
    exponent, order, count, n_data = 0, None, 0, 0
    if has_escapes:
        count, position = read_varint(payload, position)
        n_data = 4 * count
        if count == 0:
            exponent, order = payload[position : position + 2].ljust(2, b"\0")
            count, position = read_varint(payload, position + 2)
            n_data = len(payload) - position - n_stream
    end = position + n_stream
    if n_data < 0 or end + n_data != len(payload) or bool(has_escapes) != bool(count):
        raise CodingError(
            f"expected a stream of {n_stream} bytes and {count} escapes, found "
            f"{len(payload) - position} bytes"
        )
    if exponent > MAX_EXPONENT:
        raise CodingError(f"expected an escape mass of 2^0 to 2^{MAX_EXPONENT}, found 2^{exponent}")
    return payload[position:end], _Escapes(1 << exponent, order, count, payload[end:])


def _check_symbols(symbols: ArrayLike) -> NDArray[np.int32]:
    """Convert symbols [N, D] to int32. Raises `CodingError` if they do not fit."""
    symbols = np.asarray(symbols)
    if symbols.size and not INT32.min <= symbols.min() <= symbols.max() <= INT32.max:
        raise CodingError(f"symbols in [{symbols.min()}, {symbols.max()}] do not fit into int32")
    return symbols.astype(np.int32, copy=False)
