"""The order in which symbols are coded.

With one table per column, symbols are coded column by column. With one table per symbol, they are
coded table by table, in row-major order within each table.
"""

import numpy as np
from numpy.typing import NDArray


class CodingOrder:
    """Order of symbols [N, D], as runs (table, start, stop) of symbols with the same table.

    An `index` [D] gives one run per column, without sorting; an `index` [N, D] gives one per table.
    """

    def __init__(self, index: NDArray[np.integer], shape: tuple[int, int], n_tables: int):
        self.shape = shape
        n_examples, n_columns = shape
        if index.ndim == 1:
            self.order = None
            tables = index
            ends = np.arange(1, n_columns + 1) * n_examples
        else:
            # numpy's stable sort of 8- and 16-bit integers, a radix sort, is several times faster
            small = index.reshape(-1).astype(np.min_scalar_type(max(n_tables - 1, 0)))
            self.order = np.argsort(small, kind="stable")
            tables = np.arange(n_tables)
            ends = np.cumsum(np.bincount(small, minlength=n_tables))
        starts = [0, *ends[:-1].tolist()]
        runs = zip(tables.tolist(), starts, ends.tolist(), strict=False)
        self.runs = [run for run in runs if run[1] < run[2]]

    def flatten(self, array: NDArray) -> NDArray:
        """Flatten an array [N, D] to coding order [N * D]."""
        if self.order is None:
            return _transpose(array).reshape(-1)
        return array.reshape(-1)[self.order]

    def unflatten(self, flat: NDArray) -> NDArray:
        """Restore an array [N, D] from coding order [N * D]."""
        if self.order is None:
            return _transpose(flat.reshape(self.shape[::-1]))
        array = np.empty_like(flat)
        array[self.order] = flat
        return array.reshape(self.shape)

    def where(self, mask: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows and columns where a mask [N, D] is true, in coding order."""
        if self.order is None:
            columns, rows = np.nonzero(mask.T)
            return rows, columns
        return np.divmod(self.order[self.flatten(mask)], self.shape[1])


def _transpose(array: NDArray) -> NDArray:
    """Transpose into a contiguous array, in slices of 32 rows, which is several times faster."""
    transposed = np.empty(array.shape[::-1], array.dtype)
    for i in range(0, len(array), 32):
        transposed[:, i : i + 32] = array[i : i + 32].T
    return transposed
