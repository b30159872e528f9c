"""Coding tables of quantised data, in closed form."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lossyless.coding.tables import MAX_LISTED, PMF_ONE, CDFTables

# weights of the smooth distribution, among which each table chooses
MIXTURES = (0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.7, 1.0)
MIN_PROBABILITY = 1e-12


class Histogram(NamedTuple):
    """Counts of symbols, with the same range for all columns.

    Attributes
    ----------
    counts : [D, L]
    first : symbol of the first entry.
    """

    counts: NDArray[np.int64]
    first: int

    @classmethod
    def of(cls, symbols: NDArray[np.int32]) -> "Histogram":
        """Count symbols [N, D], N > 0. Those beyond the range of a table count as its ends."""
        half = MAX_LISTED // 2 - 1
        first = max(int(symbols.min()), -half) - 1  # unseen on both sides
        length = min(int(symbols.max()), half) + 2 - first
        entries = np.clip(symbols, first, first + length - 1) - first
        return cls(count(entries, length), first)


def count(
    entries: NDArray[np.integer], length: int, weights: NDArray[np.float64] | None = None
) -> NDArray:
    """Number, or sum of weights, of entries [N, D] in [0, length): [D, length]."""
    columns = np.arange(entries.shape[1]) * length
    flat = None if weights is None else weights.ravel()
    sums = np.bincount((entries + columns).ravel(), flat, minlength=entries.shape[1] * length)
    return sums.reshape(-1, length)


def fit_tables(symbols: NDArray[np.int32]) -> tuple[CDFTables, float]:
    """Tables of columns of symbols [N, D], and their leave-one-out rate in bits per row.

    The probabilities of a column are a mixture of its histogram with a two-sided geometric
    distribution, the discrete Laplace, of the same mean and scale. The weight of the mixture
    minimises the leave-one-out rate: the mean rate of each row under the other rows.
    """
    counts, first = Histogram.of(symbols)
    n = len(symbols)
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
    return tables, float(rates.sum())


def _two_sided_geometric(counts: NDArray[np.int64], first: int) -> NDArray[np.float64]:
    """Probabilities [D, L] with the mean distance from the centre that the counts have.

    Half a count at distance 1 makes symbols possible that were not seen.
    """
    symbols, n = first + np.arange(counts.shape[1]), counts.sum(1)
    centres = np.round(counts @ symbols / n)[:, None]
    distances = np.abs(symbols - centres)
    spread = (((counts * distances).sum(1) + 0.5) / (n + 1))[:, None]
    ratio = spread / (1 + np.sqrt(1 + spread**2))  # spread = 2 ratio / (1 - ratio^2)
    return (1 - ratio) / (1 + ratio) * ratio**distances
