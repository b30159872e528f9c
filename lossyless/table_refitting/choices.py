"""What becomes of each column's table, and the tables that follow from that.

    keep     the base table
    reweigh  the base table, its entries multiplied by a step function
    replace  a range of equally likely symbols, multiplied by a step function

A step function has at most `MAX_BINS` bins, and one more for the escape entry. Its values are
powers of 2^(1/4).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lossyless.cdf_tables import CDFTables

KEEP, REWEIGH, REPLACE = range(3)

MAX_BINS = 64
STEPS_PER_OCTAVE = 4
MAX_LEVEL = 10 * STEPS_PER_OCTAVE
LEVELS = np.arange(-MAX_LEVEL, MAX_LEVEL + 1)
FACTORS = 2.0 ** (LEVELS / STEPS_PER_OCTAVE)
INTEGER_FACTORS = np.rint(FACTORS * (1 << 16)).astype(np.int64)
# of a listed symbol of a replaced table, against 1 for the escape entry before its factor
REPLACED_WEIGHT = 64


@dataclass(frozen=True, eq=False)
class RefittedTables(CDFTables):
    """Tables with the description that their reader makes them from.

    Attributes
    ----------
    description : bytes, for `decode_tables` with the same base tables.
    """

    description: bytes = b""

    def __reduce__(self):
        return type(self), (self.cdfs, self.lengths, self.offsets, self.description)


@dataclass
class Choices:
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
    def all_kept(cls, base: CDFTables) -> "Choices":
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


def merge(candidates: list[Choices], best: NDArray[np.integer]) -> Choices:
    """Column d of the candidate `best[d]`."""
    columns = np.arange(len(best))
    fields = ("kinds", "ranges", "levels")
    return Choices(*(np.stack([getattr(c, f) for c in candidates])[best, columns] for f in fields))


def assign_bins(n_listed: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Bin of each entry of tables with `width` columns, [D, width]: equal parts, then the escape.

    Entries beyond the escape are said to be in its bin.
    """
    n_bins = np.minimum(n_listed, MAX_BINS)[:, None]
    bins = np.arange(width) * n_bins // np.maximum(n_listed, 1)[:, None]
    return np.minimum(bins, n_bins)


def reference_weights(choices: Choices, base: CDFTables) -> NDArray[np.int64]:
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


def make_tables(choices: Choices, base: CDFTables, description: bytes = b"") -> RefittedTables:
    """The tables that follow from choices for the columns of base tables."""
    weights = reference_weights(choices, base)
    bins = assign_bins(choices.ranges[:, 1], weights.shape[1])
    levels = np.take_along_axis(choices.levels, bins, axis=1)
    weights = weights * INTEGER_FACTORS[levels + MAX_LEVEL]
    first_symbols, n_listed = choices.ranges.T
    tables = CDFTables.from_weights(weights, n_listed + 2, first_symbols)
    return RefittedTables(tables.cdfs, tables.lengths, tables.offsets, description)
