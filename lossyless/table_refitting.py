"""CDF tables refitted to a data set, and their compact description: `adapt=True` of files.

Each column of symbols keeps its base table or gets another one, by minimum description length
(Rissanen 1978): whichever gives the fewer bits for symbols and description together.

    keep     the base table
    reweigh  the base table, its entries multiplied by a step function
    replace  a range of equally likely symbols, multiplied by a step function

A step function has at most `MAX_BINS` bins, and one more for the escape entry. Its values are
powers of 2^(1/4), and the description codes the differences of the exponents, most of them 0.

Description (little endian; a varint is an unsigned LEB128):

    varint x 2  number of columns that are reweighed, and replaced; nothing follows if both are 0
    varint + .. payload of `TableCoder`, and its length: the choice of each column
    varint x 2  per replaced column: first symbol, zigzag, and number of listed symbols
    ...         payload of `TableCoder`: differences of exponents, column after column
    u32         CRC-32 of the above, started from that of the base table's fingerprint

Tables are made of integers from a description, alike on every machine.
"""

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lossyless.cdf_tables import (
    ESCAPE_BITS,
    MAX_LISTED,
    PMF_ONE,
    TOTAL_MASS,
    CDFTables,
    listed_ranges,
)
from lossyless.coders import TableCoder
from lossyless.payloads import INT32, CodingError, read_varint, write_varint

KEEP, REWEIGH, REPLACE = range(3)

WINDOW = 2 * MAX_LISTED  # cells counted per column: holds each base table that holds the median
COLUMNS_AT_A_TIME = 64  # of whole windows: bounds the memory of their temporary arrays
MAX_BINS = 64
STEPS_PER_OCTAVE = 4
MAX_LEVEL = 10 * STEPS_PER_OCTAVE
LEVELS = np.arange(-MAX_LEVEL, MAX_LEVEL + 1)
FACTORS = 2.0 ** (LEVELS / STEPS_PER_OCTAVE)
INTEGER_FACTORS = np.rint(FACTORS * (1 << 16)).astype(np.int64)
# of a listed symbol of a replaced table, against 1 for the escape entry before its factor
REPLACED_WEIGHT = 64

# Code length in bits of a difference d of exponents: SAME_BITS if it is 0, otherwise
# CHANGE_BITS + |d| / 2. The first is most of the probability, because most bins have few symbols.
SAME_BITS, CHANGE_BITS, BITS_PER_LEVEL = 0.6, 3.3, 0.5


def _difference_tables() -> CDFTables:
    d = np.abs(np.arange(-2 * MAX_LEVEL, 2 * MAX_LEVEL + 1))
    n_bits = np.where(d == 0, SAME_BITS, CHANGE_BITS + BITS_PER_LEVEL * d)
    weights = np.append(np.rint(2.0 ** (24 - n_bits)).astype(np.int64), 0)
    return CDFTables.from_weights(weights[None], [len(weights) + 1], [-2 * MAX_LEVEL])


DIFFERENCES = _difference_tables()


class SymbolCounts:
    """How often each symbol occurs in each column; in constant memory.

    Counts `WINDOW` cells about the first batch's median of each column, the other symbols together.

    Parameters
    ----------
    n_columns : D

    Attributes
    ----------
    n_examples : int
    first_symbols : int64 [D]
        Symbol of cell 0 of each column; None before the first batch.
    """

    def __init__(self, n_columns: int):
        self.n_columns = n_columns
        self.n_examples = 0
        self.first_symbols: NDArray[np.int64] | None = None
        # one more cell for all symbols outside; pages without counts use no memory
        self._cells = np.zeros((n_columns, WINDOW + 1), np.int32)

    @property
    def counts(self) -> NDArray[np.int32]:
        """Occurrences of the cells of each column, [D, WINDOW]."""
        return self._cells[:, :WINDOW]

    def add(self, symbols: NDArray[np.integer]) -> None:
        """Count symbols [N, D]."""
        if symbols.ndim != 2 or symbols.shape[1] != self.n_columns:
            raise CodingError(
                f"expected symbols [N, {self.n_columns}], found {list(symbols.shape)}"
            )
        if len(symbols) == 0:
            return
        symbols = symbols.astype(np.int32, copy=False)
        if self.first_symbols is None:
            first = np.median(symbols, axis=0).astype(np.int64) - WINDOW // 2
            self.first_symbols = first.clip(INT32.min, INT32.max - WINDOW + 1)
        # as unsigned integers, symbols below the window wrap to values above it
        cells = np.subtract(symbols, self.first_symbols.astype(np.int32)).view(np.uint32)
        starts = np.arange(self.n_columns) * (WINDOW + 1)
        flat = (np.minimum(cells, WINDOW) + starts).reshape(-1)
        np.add.at(self._cells.reshape(-1), flat, np.int32(1))  # another dtype is 10 times slower
        self.n_examples += len(symbols)

    def entries(self, tables: CDFTables) -> NDArray[np.int64]:
        """Occurrences of the entries of each table, the escape last, [D, max_length - 1]."""
        n_listed = tables.escapes.astype(np.int64)
        i = np.arange(tables.cdfs.shape[1] - 1)
        occurrences = np.zeros((self.n_columns, len(i)), np.int64)
        if self.first_symbols is not None:
            cells = tables.offsets[:, None] - self.first_symbols[:, None] + i
            is_counted = (i < n_listed[:, None]) & (cells >= 0) & (cells < WINDOW)
            counts = np.take_along_axis(self.counts, cells.clip(0, WINDOW - 1), axis=1)
            occurrences = np.where(is_counted, counts, 0).astype(np.int64)
        escaped = self.n_examples - occurrences.sum(1)
        np.put_along_axis(occurrences, n_listed[:, None], escaped[:, None], axis=1)
        return occurrences


@dataclass(frozen=True, eq=False)
class RefittedTables(CDFTables):
    """Tables with the description that their reader makes them from.

    Attributes
    ----------
    description : bytes, what `encode_tables` returns.
    """

    description: bytes = b""

    def __reduce__(self):
        return type(self), (self.cdfs, self.lengths, self.offsets, self.description)


def refit(counts: SymbolCounts, base: CDFTables) -> RefittedTables:
    """The tables, one per column, with which symbols and description are shortest together.

    Where that is the base tables themselves, their description has 6 bytes.
    """
    _check_columns(counts.n_columns, base)
    kept = _Choices.all_kept(base)
    candidates = {KEEP: kept}
    if counts.n_examples > 0:
        candidates[REWEIGH] = _fit(counts, base, np.full(base.n_tables, REWEIGH), kept.ranges)
        ranges = _best_ranges(counts)
        candidates[REPLACE] = _fit(counts, base, np.full(base.n_tables, REPLACE), ranges)
    n_bits = np.stack([_column_bits(c, counts, base) for c in candidates.values()])
    best = _merge(list(candidates.values()), n_bits.argmin(0))
    # the price of a choice depends on all the others: the whole must be worth it too
    refitted = _describe(best, base)
    unchanged = _describe(kept, base)
    return min(unchanged, refitted, key=lambda tables: _total_bits(tables, counts))


def encode_tables(tables: CDFTables, base: CDFTables) -> bytes:
    """Description of tables that `refit` made from `base`, or of `base` itself."""
    if isinstance(tables, RefittedTables):
        _check_crc(tables.description, base)
        return tables.description
    if tables.fingerprint() != base.fingerprint():
        raise CodingError("only tables that `refit` made, and the base tables, have a description")
    return _describe(_Choices.all_kept(base), base).description


def decode_tables(data: bytes, base: CDFTables) -> RefittedTables:
    """The tables of a description, which was made with the same base tables.

    Raises
    ------
    CodingError
        `data` is damaged, or was made with other base tables.
    """
    return _tables(_read(_check_crc(data, base), base), base, bytes(data))


# --- choices: what a description says


@dataclass
class _Choices:
    """What becomes of each column.

    Attributes
    ----------
    kinds : int [D], KEEP, REWEIGH or REPLACE
    ranges : int64 [D, 2], first listed symbol and number of listed symbols
    levels : int64 [D, MAX_BINS + 1], exponents of the steps; those beyond the escape's bin are 0
    """

    kinds: NDArray[np.int64]
    ranges: NDArray[np.int64]
    levels: NDArray[np.int64]

    @classmethod
    def all_kept(cls, base: CDFTables) -> "_Choices":
        kinds = np.full(base.n_tables, KEEP)
        ranges = np.stack([base.offsets, base.escapes], axis=1).astype(np.int64)
        return cls(kinds, ranges, np.zeros((base.n_tables, MAX_BINS + 1), np.int64))

    @property
    def n_bins(self) -> NDArray[np.int64]:
        """Bins of listed symbols, which is also the index of the escape's bin, [D]."""
        return np.minimum(self.ranges[:, 1], MAX_BINS)

    def is_bin(self) -> NDArray[np.bool_]:
        """Whether a level is one that the description holds, [D, MAX_BINS + 1]."""
        in_table = np.arange(MAX_BINS + 1) <= self.n_bins[:, None]
        return in_table & (self.kinds != KEEP)[:, None]

    def differences(self) -> NDArray[np.int64]:
        """Differences of successive levels, the first from 0, [D, MAX_BINS + 1]."""
        return np.diff(self.levels, axis=1, prepend=0)


def _merge(candidates: list[_Choices], best: NDArray[np.integer]) -> _Choices:
    """Column d of the candidate `best[d]`."""
    columns = np.arange(len(best))
    fields = ("kinds", "ranges", "levels")
    return _Choices(*(np.stack([getattr(c, f) for c in candidates])[best, columns] for f in fields))


def _bins(n_listed: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Bin of each entry of tables with `width` columns, [D, width]: equal parts, then the escape.

    Entries beyond the escape are said to be in its bin.
    """
    n_bins = np.minimum(n_listed, MAX_BINS)[:, None]
    bins = np.arange(width) * n_bins // np.maximum(n_listed, 1)[:, None]
    return np.minimum(bins, n_bins)


def _reference(choices: _Choices, base: CDFTables) -> NDArray[np.int64]:
    """Weights before their factors, [D, width]: at most 2^18 in all; 0 beyond the escape."""
    n_listed = choices.ranges[:, 1]
    i = np.arange(n_listed.max(initial=0) + 1)
    weights = np.where(i < n_listed[:, None], REPLACED_WEIGHT, 0)
    np.put_along_axis(weights, n_listed[:, None], 1, axis=1)
    masses = np.diff(base.cdfs, axis=1)[:, : len(i)].astype(np.int64)
    is_base = choices.kinds != REPLACE
    weights[is_base] = 0
    weights[is_base, : masses.shape[1]] = masses[is_base]
    return weights


def _tables(choices: _Choices, base: CDFTables, description: bytes = b"") -> RefittedTables:
    weights = _reference(choices, base)
    bins = _bins(choices.ranges[:, 1], weights.shape[1])
    levels = np.take_along_axis(choices.levels, bins, axis=1)
    weights = weights * INTEGER_FACTORS[levels + MAX_LEVEL]
    first_symbols, n_listed = choices.ranges.T
    tables = CDFTables.from_weights(weights, n_listed + 2, first_symbols)
    return RefittedTables(tables.cdfs, tables.lengths, tables.offsets, description)


# --- fitting


def _best_ranges(counts: SymbolCounts) -> NDArray[np.int64]:
    """First symbol and number of symbols to list for each column's counts, [D, 2]."""
    ranges = np.empty((counts.n_columns, 2), np.int64)
    for i in range(0, counts.n_columns, COLUMNS_AT_A_TIME):
        block = slice(i, i + COLUMNS_AT_A_TIME)
        frequencies = counts.counts[block].astype(np.int64) * PMF_ONE // counts.n_examples
        cumulative = np.cumsum(frequencies, axis=1)
        medians = (2 * cumulative <= cumulative[:, -1:]).sum(1).clip(max=WINDOW - 1)
        first, stop = listed_ranges(frequencies, medians)
        ranges[block] = np.stack([counts.first_symbols[block] + first, stop - first], axis=1)
    return ranges


def _fit(
    counts: SymbolCounts,
    base: CDFTables,
    kinds: NDArray[np.int64],
    ranges: NDArray[np.int64],
) -> _Choices:
    """The levels with which symbols and description are shortest together, by Viterbi search.

    For occurrences n, reference probabilities p and factors r of the bins, and N examples,
    symbols take N log(sum p r) - sum n log r nats more than with the reference. The bound
    log x <= x - 1, which is tight where the factors keep the sum at 1, makes that a sum over bins.
    """
    n_levels = len(LEVELS)
    choices = _Choices(kinds, ranges, np.zeros((len(kinds), MAX_BINS + 1), np.int64))
    reference = _reference(choices, base)
    bins = _bins(ranges[:, 1], reference.shape[1])
    occurrences = counts.entries(_tables(choices, base))
    n = _sum_bins(occurrences, bins)
    expected = _sum_bins(reference, bins) / reference.sum(1, keepdims=True) * counts.n_examples
    is_bin = choices.is_bin()

    costs = np.full((len(kinds), n_levels), np.inf)
    costs[:, MAX_LEVEL] = 0.0
    history = np.empty((MAX_BINS + 1, len(kinds), n_levels))
    log_factors, excess = LEVELS / STEPS_PER_OCTAVE, (FACTORS - 1) / np.log(2)
    for b in range(MAX_BINS + 1):
        history[b] = costs
        data = expected[:, b, None] * excess - n[:, b, None] * log_factors
        costs = np.where(is_bin[:, b, None], _cheapest_change(costs) + data, costs)

    level = costs.argmin(1)
    for b in reversed(range(MAX_BINS + 1)):
        choices.levels[:, b] = np.where(is_bin[:, b], LEVELS[level], 0)
        before = history[b] + _difference_bits(LEVELS - LEVELS[level][:, None])
        level = np.where(is_bin[:, b], before.argmin(1), level)
    return choices


def _sum_bins(values: NDArray[np.int64], bins: NDArray[np.int64]) -> NDArray[np.int64]:
    sums = np.zeros((len(values), MAX_BINS + 1), np.int64)
    np.add.at(sums, (np.arange(len(values))[:, None], bins), values)
    return sums


def _difference_bits(differences: NDArray[np.int64]) -> NDArray[np.float64]:
    change = CHANGE_BITS + BITS_PER_LEVEL * np.abs(differences)
    return np.where(differences == 0, SAME_BITS, change)


def _cheapest_change(costs: NDArray[np.float64]) -> NDArray[np.float64]:
    """min over j of costs[:, j] + bits of the difference k - j, for each level k.

    Two running minima, since the bits grow linearly with the difference.
    """
    slope = BITS_PER_LEVEL * np.arange(costs.shape[1])
    rising = np.minimum.accumulate(costs - slope, axis=1) + slope
    falling = np.minimum.accumulate((costs + slope)[:, ::-1], axis=1)[:, ::-1] - slope
    return np.minimum(costs + SAME_BITS, np.minimum(rising, falling) + CHANGE_BITS)


def _symbol_bits(tables: CDFTables, counts: SymbolCounts) -> NDArray[np.float64]:
    """Bits of all symbols of each column, [D]."""
    occurrences = counts.entries(tables)
    masses = np.diff(tables.cdfs, axis=1)
    n_bits = np.log2(TOTAL_MASS) - np.log2(np.maximum(masses, 1))
    escaped = np.take_along_axis(occurrences, tables.escapes[:, None].astype(np.int64), axis=1)
    return (occurrences * n_bits).sum(1) + ESCAPE_BITS * escaped[:, 0]


def _column_bits(choices: _Choices, counts: SymbolCounts, base: CDFTables) -> NDArray[np.float64]:
    """Bits of the symbols and the description of each column, [D]."""
    differences = np.where(choices.is_bin(), _difference_bits(choices.differences()), 0).sum(1)
    is_replaced = choices.kinds == REPLACE
    n_range_bits = 8 * sum(map(_varint_size, _range_varints(choices.ranges).T))
    n_bits = _symbol_bits(_tables(choices, base), counts)
    return n_bits + differences + np.where(is_replaced, n_range_bits, 0)


def _total_bits(tables: RefittedTables, counts: SymbolCounts) -> float:
    return _symbol_bits(tables, counts).sum() + 8 * len(tables.description)


# --- descriptions as bytes


def _describe(choices: _Choices, base: CDFTables) -> RefittedTables:
    """The tables of choices, made from their description as a reader does."""
    data = _write(choices)
    return decode_tables(data + _crc(data, base), base)


def _write(choices: _Choices) -> bytes:
    n_columns = np.bincount(choices.kinds, minlength=3)
    head = write_varint(int(n_columns[REWEIGH])) + write_varint(int(n_columns[REPLACE]))
    if n_columns[KEEP] == len(choices.kinds):
        return head
    kinds = TableCoder(_kind_tables(n_columns)).encode(choices.kinds[:, None], [0])
    ranges = _range_varints(choices.ranges[choices.kinds == REPLACE]).reshape(-1).tolist()
    differences = choices.differences()[choices.is_bin()]
    parts = [head, write_varint(len(kinds)), kinds, *map(write_varint, ranges)]
    return b"".join([*parts, TableCoder(DIFFERENCES).encode(differences[:, None], [0])])


def _read(data: bytes, base: CDFTables) -> _Choices:
    choices = _Choices.all_kept(base)
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


def _check_columns(n_columns: int, base: CDFTables) -> None:
    if n_columns != base.n_tables:
        raise CodingError(f"{n_columns} columns of symbols, but {base.n_tables} tables")
