"""Closed-form coding tables for quantised data."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lossyless.coding.escapes import best_order, code_lengths
from lossyless.coding.tables import MAX_LISTED, PMF_ONE, CDFTables

# candidate weights of the smooth distribution; each table chooses one
MIXTURES = (0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.7, 1.0)
MIN_PROBABILITY = 1e-12


class NonZeros(NamedTuple):
    """The non-zero symbols of a matrix [N, D]; at low rates, there are few.

    Attributes
    ----------
    columns, symbols : [n]
    shape : (N, D)
    """

    columns: NDArray[np.int64]
    symbols: NDArray[np.int32]
    shape: tuple[int, int]

    @property
    def range(self) -> tuple[int, int]:
        """Smallest range that contains 0 and all symbols, clipped to what a table can list."""
        lowest, highest = int(self.symbols.min(initial=0)), int(self.symbols.max(initial=0))
        return max(lowest, 1 - MAX_LISTED // 2), min(highest, MAX_LISTED // 2 - 1)

    def sums(self, first: int, length: int, weights: NDArray[np.float64] | None = None) -> NDArray:
        """Count each symbol from `first` on, or sum its weights, in each column: [D, length].

        Symbols outside this range are counted at its nearer end.
        """
        entries = np.clip(self.symbols, first, first + length - 1) - first
        n_columns = self.shape[1]
        sums = np.bincount(self.columns * length + entries, weights, minlength=n_columns * length)
        return sums.reshape(n_columns, length)


def fit_tables(found: NonZeros) -> tuple[CDFTables, float]:
    """Fit a table to each column of symbols; also return the leave-one-out rate in bits per row.

    The probabilities of a column are a mixture of its histogram and a two-sided geometric
    distribution (discrete Laplace) with the same mean (rounded) and scale. The mixture weight
    minimises the leave-one-out rate: the mean rate of the rows, each under a mixture with the
    histogram of the other rows. Mean and scale are estimated from all rows.
    """
    n, (lowest, highest) = found.shape[0], found.range
    first = lowest - 1  # one more symbol on either side
    counts = found.sums(first, highest - lowest + 3)
    counts[:, -first] = n - counts.sum(1)
    smooth = _two_sided_geometric(counts, first)
    rates = np.full(len(counts), np.inf)
    mixtures = np.empty(len(counts))
    for weight in MIXTURES:
        others = (1 - weight) * np.maximum(counts - 1, 0) / max(n - 1, 1)
        probabilities = np.maximum(others + weight * smooth, MIN_PROBABILITY)
        rate = -(counts * np.log2(probabilities)).sum(1) / n
        mixtures = np.where(rate < rates, weight, mixtures)
        rates = np.minimum(rate, rates)
    mixtures = mixtures[:, None]
    pmf = np.round(((1 - mixtures) * counts / n + mixtures * smooth) * PMF_ONE).astype(np.int64)
    tables = CDFTables.from_pmf(pmf, np.full(len(counts), first), counts.argmax(1))
    return tables, float(rates.sum()) + _escape_bits(found, lowest, highest) / n


def _escape_bits(found: NonZeros, lowest: int, highest: int) -> int:
    """Approximate bits of the escape codes for symbols outside [lowest, highest]."""
    beyond = np.maximum(lowest - found.symbols.astype(np.int64), found.symbols - highest)
    distances = 2 * beyond[beyond > 0]
    return int(code_lengths(distances, best_order(distances)).sum())


def _two_sided_geometric(counts: NDArray[np.int64], first: int) -> NDArray[np.float64]:
    """Probabilities [D, L] with the same mean distance from the centre as the counts.

    A pseudo-count at distance 1/2 gives unseen symbols a positive probability.
    """
    symbols, n = first + np.arange(counts.shape[1]), counts.sum(1)
    centres = np.round(counts @ symbols / n)[:, None]
    distances = np.abs(symbols - centres)
    spread = (((counts * distances).sum(1) + 0.5) / (n + 1))[:, None]
    ratio = spread / (1 + np.sqrt(1 + spread**2))  # spread = 2 ratio / (1 - ratio^2)
    return (1 - ratio) / (1 + ratio) * ratio**distances
