"""How often each symbol of a data set occurs."""

import numpy as np
from numpy.typing import NDArray

from lossyless.cdf_tables import MAX_LISTED, CDFTables
from lossyless.payloads import INT32, CodingError

WINDOW = 2 * MAX_LISTED  # cells counted per column: holds each base table that holds the median
ROWS_AT_A_TIME = 256  # of symbols: bounds the memory of their temporary arrays


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
        if self.first_symbols is None:
            first = np.median(symbols, axis=0).astype(np.int64) - WINDOW // 2
            self.first_symbols = first.clip(INT32.min, INT32.max - WINDOW + 1)
        for start in range(0, len(symbols), ROWS_AT_A_TIME):
            self._add_block(symbols[start : start + ROWS_AT_A_TIME].astype(np.int32, copy=False))
        self.n_examples += len(symbols)

    def _add_block(self, symbols: NDArray[np.int32]) -> None:
        # as unsigned integers, symbols below the window wrap to values above it
        cells = np.subtract(symbols, self.first_symbols.astype(np.int32)).view(np.uint32)
        starts = np.arange(self.n_columns) * (WINDOW + 1)
        flat = (np.minimum(cells, WINDOW) + starts).reshape(-1)
        np.add.at(self._cells.reshape(-1), flat, np.int32(1))  # another dtype is 10 times slower

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
