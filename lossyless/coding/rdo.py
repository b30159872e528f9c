"""Rate-distortion optimised quantisation.

An encoder may send any symbol: decoders only need the tables. Rounding minimises the error alone.
Here, each symbol minimises

    (x - point)^2 + weight * bits

over the nearest cell, its neighbour towards zero, and zero (Sullivan, 1996: "Efficient scalar
quantization of exponential and Laplacian random variables").
"""

import numpy as np
from numpy.typing import NDArray

from lossyless.coding.cell_means import CellMeans
from lossyless.coding.escapes import code_lengths
from lossyless.coding.tables import TOTAL_MASS, CDFTables

# In squared cell widths per bit. The width w minimises the error w^2 / 12 plus the rate -beta ln(w)
# if beta = w^2 / 6 per nat.
NATURAL_WEIGHT = np.log(2) / 6
ESCAPE_ORDER = 1  # the order of escape codes is unknown before coding


def cheaper_cells(
    x: NDArray[np.floating],
    cells: NDArray[np.int32],
    tables: CDFTables,
    *,
    index: NDArray[np.integer] | None = None,
    means: CellMeans | None = None,
    weight: float = NATURAL_WEIGHT,
) -> NDArray[np.int32]:
    """The cells [N, D] to send for values x [N, D], in cell widths.

    Parameters
    ----------
    x : values about the centres of the cells of symbol 0.
    cells : the nearest cells.
    index : table of each value, [N, D]; by default, column d has table d.
    means : where cells are decoded to; by default, to their symbol.
    weight : weight of a bit, in squared cell widths.
    """
    chosen = cells.copy()
    where = np.nonzero(cells)  # the others are zero already
    x, cells = x[where], cells[where]
    index = where[1] if index is None else index[where]
    costs, n_listed, offsets = _bits(tables), tables.escapes[index], tables.offsets[index]
    best, lowest = cells, np.full(len(cells), np.inf)
    for candidate in (cells, cells - np.sign(cells), np.zeros_like(cells)):
        entries = candidate.astype(np.int64) - offsets
        distances = np.where(entries < 0, -2 * entries - 1, 2 * (entries - n_listed))
        is_escaped = (entries < 0) | (entries >= n_listed)
        entries = np.where(is_escaped, n_listed, entries)
        bits = costs[index, entries]
        bits[is_escaped] += code_lengths(distances[is_escaped], ESCAPE_ORDER)
        errors = x - candidate if means is None else x - candidate - means.offsets(index, candidate)
        cost = errors**2 + weight * bits
        best = np.where(cost < lowest, candidate, best)
        lowest = np.minimum(cost, lowest)
    chosen[where] = best
    return chosen


def _bits(tables: CDFTables) -> NDArray[np.float64]:
    """Bits of each entry [n_tables, max_length - 1]; unlimited beyond the end of a table."""
    with np.errstate(divide="ignore"):
        return -np.log2(np.diff(tables.cdfs) / TOTAL_MASS)
