"""Choices of tables as bytes, in the header of a file, and back.

Layout (little endian; a varint is an unsigned LEB128):

    varint x 2  number of columns that are reweighed, and replaced; nothing follows if both are 0
    varint + .. payload of `TableCoder`, and its length: the choice of each column
    varint x 2  per replaced column: first symbol, zigzag, and number of listed symbols
    ...         payload of `TableCoder`: differences of exponents, column after column
    u32         CRC-32 of the above, started from that of the base table's fingerprint

The exponents are those of the step functions; the differences of successive ones are mostly 0.
"""

import zlib

import numpy as np
from numpy.typing import NDArray

from lossyless.cdf_tables import MAX_LISTED, CDFTables
from lossyless.coders import TableCoder
from lossyless.payloads import INT32, CodingError, read_varint, write_varint
from lossyless.table_refitting.choices import (
    KEEP,
    MAX_LEVEL,
    REPLACE,
    REWEIGH,
    Choices,
    RefittedTables,
    make_tables,
)

# Code length in bits of a difference d of exponents: SAME_BITS if it is 0, otherwise
# CHANGE_BITS + |d| / 2. The first is most of the probability, because most bins have few symbols.
SAME_BITS, CHANGE_BITS, BITS_PER_LEVEL = 0.6, 3.3, 0.5


def difference_bits(differences: NDArray[np.int64]) -> NDArray[np.float64]:
    """Bits that differences of exponents take."""
    change = CHANGE_BITS + BITS_PER_LEVEL * np.abs(differences)
    return np.where(differences == 0, SAME_BITS, change)


def _difference_tables() -> CDFTables:
    d = np.abs(np.arange(-2 * MAX_LEVEL, 2 * MAX_LEVEL + 1))
    n_bits = np.where(d == 0, SAME_BITS, CHANGE_BITS + BITS_PER_LEVEL * d)
    weights = np.append(np.rint(2.0 ** (24 - n_bits)).astype(np.int64), 0)
    return CDFTables.from_weights(weights[None], [len(weights) + 1], [-2 * MAX_LEVEL])


DIFFERENCES = _difference_tables()


def describe(choices: Choices, base: CDFTables) -> RefittedTables:
    """The tables of choices, made from their description as a reader does."""
    data = _write(choices)
    return decode_tables(data + _crc(data, base), base)


def decode_tables(data: bytes, base: CDFTables) -> RefittedTables:
    """The tables of a description, which was made with the same base tables.

    Raises
    ------
    CodingError
        `data` is damaged, or was made with other base tables.
    """
    return make_tables(_read(_check_crc(data, base), base), base, bytes(data))


def _write(choices: Choices) -> bytes:
    n_columns = np.bincount(choices.kinds, minlength=3)
    head = write_varint(int(n_columns[REWEIGH])) + write_varint(int(n_columns[REPLACE]))
    if n_columns[KEEP] == len(choices.kinds):
        return head
    kinds = TableCoder(_kind_tables(n_columns)).encode(choices.kinds[:, None], [0])
    ranges = _range_varints(choices.ranges[choices.kinds == REPLACE]).reshape(-1).tolist()
    differences = choices.differences()[choices.is_bin()]
    parts = [head, write_varint(len(kinds)), kinds, *map(write_varint, ranges)]
    return b"".join([*parts, TableCoder(DIFFERENCES).encode(differences[:, None], [0])])


def _read(data: bytes, base: CDFTables) -> Choices:
    choices = Choices.all_kept(base)
    n_reweighed, position = read_varint(data, 0)
    n_replaced, position = read_varint(data, position)
    n_kept = base.n_tables - n_reweighed - n_replaced
    if n_kept < 0:
        raise CodingError(f"more columns are refitted than the {base.n_tables} that there are")
    if n_kept < base.n_tables:
        n_columns = np.array([n_kept, n_reweighed, n_replaced])
        size, position = read_varint(data, position)
        end = position + size
        kinds = TableCoder(_kind_tables(n_columns)).decode(data[position:end], [0], base.n_tables)
        choices.kinds = kinds[:, 0].astype(np.int64)
        if (choices.kinds < 0).any() or (
            np.bincount(choices.kinds.clip(max=3), minlength=3) != n_columns
        ).any():
            raise CodingError("the choices of columns are not as many as announced")
        choices.ranges[choices.kinds == REPLACE], end = _read_ranges(data, end, n_replaced)
        is_bin = choices.is_bin()
        coder = TableCoder(DIFFERENCES)
        differences = np.zeros_like(choices.levels)
        differences[is_bin] = coder.decode(data[end:], [0], int(is_bin.sum()))[:, 0]
        choices.levels = np.where(is_bin, np.cumsum(differences, axis=1), 0)
        if (np.abs(choices.levels) > MAX_LEVEL).any():
            raise CodingError(f"an exponent is not within {MAX_LEVEL}")
    elif position != len(data):
        raise CodingError(f"expected {position} bytes of description, found {len(data)}")
    return choices


def _read_ranges(data: bytes, position: int, n_ranges: int) -> tuple[NDArray[np.int64], int]:
    ranges = np.zeros((n_ranges, 2), np.int64)
    for i in range(n_ranges):
        zigzag, position = read_varint(data, position)
        n_listed, position = read_varint(data, position)
        first = zigzag >> 1 if zigzag % 2 == 0 else ~(zigzag >> 1)
        if not (1 <= n_listed <= MAX_LISTED and INT32.min <= first <= INT32.max - MAX_LISTED):
            raise CodingError(f"a table cannot list {n_listed} symbols from {first}")
        ranges[i] = first, n_listed
    return ranges, position


def _range_varints(ranges: NDArray[np.int64]) -> NDArray[np.int64]:
    """Values of the varints of ranges [D, 2]."""
    first, n_listed = ranges.T
    return np.stack([(first << 1) ^ (first >> 63), n_listed], axis=1)


def range_sizes(ranges: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bytes that each of the ranges [D, 2] takes, [D]."""
    return sum(map(_varint_size, _range_varints(ranges).T))


def _varint_size(values: NDArray[np.int64]) -> NDArray[np.int64]:
    thresholds = 1 << (7 * np.arange(1, 9))
    return 1 + (values[:, None] >= thresholds).sum(1)


def _kind_tables(n_columns: NDArray[np.int64]) -> CDFTables:
    return CDFTables.from_weights(np.append(n_columns, 0)[None], [5], [0])


def _crc(data: bytes, base: CDFTables) -> bytes:
    return zlib.crc32(data, zlib.crc32(base.fingerprint())).to_bytes(4, "little")


def _check_crc(data: bytes, base: CDFTables) -> bytes:
    content, crc = bytes(data[:-4]), data[-4:]
    if crc != _crc(content, base):
        raise CodingError("the tables of this file are damaged, or belong to another entropy model")
    return content
