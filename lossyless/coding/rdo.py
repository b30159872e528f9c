"""Rate-distortion optimised quantisation.

An encoder may send any symbol: decoders only need the tables. Rounding minimises the error alone.
Here, the symbol chosen for a value x minimises

    (x - point)^2 + weight * bits

over the nearest cell, its neighbour towards zero, and zero (Sullivan, 1996: "Efficient scalar
quantization of exponential and Laplacian random variables").
"""

import numpy as np
from numpy.typing import NDArray

from lossyless.coding.cell_means import STEPS, CellMeans
from lossyless.coding.escapes import code_lengths
from lossyless.coding.tables import TOTAL_MASS, CDFTables

# In squared cell widths per bit. The width w minimises w^2 / 12 - beta ln(w), the error plus the
# weighted rate, if beta = w^2 / 6 per nat.
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
    """Choose the cells [N, D] to send for values x [N, D], in cell widths.

    Parameters
    ----------
    x : values relative to the centres of the cells whose symbol is 0.
    cells : the nearest cells.
    index : table of each value, [N, D]; by default, column d uses table d.
    means : values that cells are decoded to; by default, their symbols.
    weight : weight of a bit, in squared cell widths.
    """
    chosen = cells.copy()
    where = np.nonzero(cells)  # the others are already zero
    index = where[1] if index is None else index[where].astype(np.int64)
    chosen[where] = cheaper_nonzeros(x[where], cells[where], index, tables, means, weight)
    return chosen


def cheaper_nonzeros(
    x: NDArray[np.floating],
    cells: NDArray[np.int32],
    index: NDArray[np.int64],
    tables: CDFTables,
    means: CellMeans | None = None,
    weight: float = NATURAL_WEIGHT,
) -> NDArray[np.int32]:
    """Like `cheaper_cells`, for values x [n] whose nearest cells [n] are not 0."""
    with np.errstate(divide="ignore"):  # the padding of tables has mass 0
        prices = -weight * np.log2(np.diff(tables.cdfs) / TOTAL_MASS)
    points = np.zeros_like(prices)
    if means is not None:
        points[:, :-1] = means.steps / STEPS
    offsets = tables.offsets.astype(np.int64)

    def coded(symbols: NDArray, index: NDArray) -> tuple[NDArray, NDArray]:
        """The points that symbols are decoded to, and their prices."""
        entries, n_listed = symbols - offsets[index], tables.escapes[index]
        beyond = np.flatnonzero((entries < 0) | (entries >= n_listed))
        escaped, n_listed = entries[beyond], n_listed[beyond]
        entries[beyond] = n_listed
        places = index * prices.shape[1] + entries
        price = prices.ravel()[places]
        distances = np.where(escaped < 0, -2 * escaped - 1, 2 * (escaped - n_listed))
        price[beyond] += weight * code_lengths(distances, ESCAPE_ORDER)
        return symbols + points.ravel()[places], price

    every, everywhere = np.arange(tables.n_tables), slice(None)
    zeros = (values[index] for values in coded(np.zeros_like(every), every))
    large = np.flatnonzero(np.abs(cells) > 1)
    smaller = cells[large] - np.sign(cells[large])
    best, lowest = cells.copy(), np.full(len(x), np.inf)
    for where, symbols, (point, price) in (
        (everywhere, cells, coded(cells, index)),
        (large, smaller, coded(smaller, index[large])),
        (everywhere, 0, zeros),
    ):
        costs = (x[where] - point) ** 2 + price
        is_lower = costs < lowest[where]
        best[where] = np.where(is_lower, symbols, best[where])
        lowest[where] = np.minimum(costs, lowest[where])
    return best
