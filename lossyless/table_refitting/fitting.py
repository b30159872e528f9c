"""The choices of tables with which a data set and their description are shortest."""

import numpy as np
from numpy.typing import NDArray

from lossyless.cdf_tables import ESCAPE_BITS, PMF_ONE, TOTAL_MASS, CDFTables, listed_ranges
from lossyless.payloads import CodingError
from lossyless.table_refitting.choices import (
    FACTORS,
    LEVELS,
    MAX_BINS,
    MAX_LEVEL,
    REPLACE,
    REWEIGH,
    STEPS_PER_OCTAVE,
    Choices,
    RefittedTables,
    assign_bins,
    make_tables,
    merge,
    reference_weights,
)
from lossyless.table_refitting.counting import WINDOW, SymbolCounts
from lossyless.table_refitting.description import (
    BITS_PER_LEVEL,
    CHANGE_BITS,
    SAME_BITS,
    describe,
    difference_bits,
    range_sizes,
)

COLUMNS_AT_A_TIME = 64  # of whole windows: bounds the memory of their temporary arrays


def refit(counts: SymbolCounts, base: CDFTables) -> RefittedTables:
    """The tables, one per column, with which symbols and description are shortest together.

    Where that is the base tables themselves, their description has 6 bytes.
    """
    if counts.n_columns != base.n_tables:
        raise CodingError(f"{counts.n_columns} columns of symbols, but {base.n_tables} tables")
    kept = Choices.all_kept(base)
    candidates = [kept]
    if counts.n_examples > 0:
        candidates.append(_fit(counts, base, np.full(base.n_tables, REWEIGH), kept.ranges))
        ranges = _best_ranges(counts)
        candidates.append(_fit(counts, base, np.full(base.n_tables, REPLACE), ranges))
    n_bits = np.stack([_column_bits(c, counts, base) for c in candidates])
    best = merge(candidates, n_bits.argmin(0))
    # the price of a choice depends on all the others: the whole must be worth it too
    refitted = describe(best, base)
    unchanged = describe(kept, base)
    return min(unchanged, refitted, key=lambda tables: _total_bits(tables, counts))


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
) -> Choices:
    """The levels with which symbols and description are shortest together, by Viterbi search.

    For occurrences n, reference probabilities p and factors r of the bins, and N examples,
    symbols take N log(sum p r) - sum n log r nats more than with the reference. The bound
    log x <= x - 1, which is tight where the factors keep the sum at 1, makes that a sum over bins.
    """
    n_levels = len(LEVELS)
    choices = Choices(kinds, ranges, np.zeros((len(kinds), MAX_BINS + 1), np.int64))
    reference = reference_weights(choices, base)
    bins = assign_bins(ranges[:, 1], reference.shape[1])
    occurrences = counts.entries(make_tables(choices, base))
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
        before = history[b] + difference_bits(LEVELS - LEVELS[level][:, None])
        level = np.where(is_bin[:, b], before.argmin(1), level)
    return choices


def _sum_bins(values: NDArray[np.int64], bins: NDArray[np.int64]) -> NDArray[np.int64]:
    sums = np.zeros((len(values), MAX_BINS + 1), np.int64)
    np.add.at(sums, (np.arange(len(values))[:, None], bins), values)
    return sums


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


def _column_bits(choices: Choices, counts: SymbolCounts, base: CDFTables) -> NDArray[np.float64]:
    """Bits of the symbols and the description of each column, [D]."""
    differences = np.where(choices.is_bin(), difference_bits(choices.differences()), 0).sum(1)
    is_replaced = choices.kinds == REPLACE
    n_range_bits = 8 * range_sizes(choices.ranges)
    n_bits = _symbol_bits(make_tables(choices, base), counts)
    return n_bits + differences + np.where(is_replaced, n_range_bits, 0)


def _total_bits(tables: RefittedTables, counts: SymbolCounts) -> float:
    return _symbol_bits(tables, counts).sum() + 8 * len(tables.description)
