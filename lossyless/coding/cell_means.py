"""Reconstruction points of quantisation cells."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lossyless.coding.histograms import NonZeros
from lossyless.coding.tables import CDFTables

STEPS = 128  # positions are multiples of 1 / 128 of a cell width
SHRINKAGE = 2.0  # pseudo-count that shrinks a position towards the middle of its cell


class CellMeans(NamedTuple):
    """The values that cells decode to: means of the training values quantised to each cell.

    Attributes
    ----------
    steps : int8 [D, L], mean minus symbol for each table entry, in units of 1 / 128 cell width.
    tables : coding tables of the symbols; symbols that they do not list decode to themselves.
    """

    steps: NDArray[np.int8]
    tables: CDFTables

    @classmethod
    def fit(
        cls,
        found: NonZeros,
        values: NDArray[np.float64],
        totals: NDArray[np.float64],
        tables: CDFTables,
    ) -> "CellMeans":
        """Fit the means, with shrinkage, to the values [n] that have non-zero symbols.

        The means for symbol 0 follow from the column sums `totals` [D] of all values. Values and
        sums are in cell widths.
        """
        lowest, highest = found.range
        first, length = lowest - 1, highest - lowest + 3  # both end bins include outliers
        n, n_columns = found.shape
        counts = found.sums(first, length)
        sums = found.sums(first, length, values - found.symbols)
        counts[:, -first] = n - counts.sum(1)
        sums[:, -first] = totals - np.bincount(found.columns, values, minlength=n_columns)
        steps = np.round(sums / (counts + SHRINKAGE) * STEPS).clip(-STEPS, STEPS - 1)
        steps[:, [0, -1]] = 0
        entries = np.arange(tables.escapes.max())
        places = (tables.offsets[:, None] + entries - first).clip(0, length - 1)
        steps = np.take_along_axis(steps, places, axis=1)
        return cls(np.where(entries < tables.escapes[:, None], steps, 0).astype(np.int8), tables)

    def offsets(self, columns: NDArray[np.integer], symbols: NDArray[np.integer]) -> NDArray:
        """Mean minus symbol, for each of the symbols [n] in the given columns [n]."""
        entries = symbols - self.tables.offsets[columns]
        is_listed = (entries >= 0) & (entries < self.tables.escapes[columns])
        return self.steps[columns, np.where(is_listed, entries, 0)] * is_listed / STEPS

    def decode(self, symbols: NDArray[np.int32]) -> NDArray[np.float64]:
        """Decode symbols [N, D] to values [N, D], in cell widths."""
        columns = np.arange(symbols.shape[1])
        values = np.tile(self.offsets(columns, np.zeros_like(columns)), (len(symbols), 1))
        where = np.nonzero(symbols)
        values[where] = symbols[where] + self.offsets(where[1], symbols[where])
        return values
