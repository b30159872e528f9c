"""Scalar quantisers, fitted together with the coding tables of their symbols."""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lossyless.coding.cell_means import CellMeans
from lossyless.coding.histograms import NonZeros, fit_tables
from lossyless.coding.rdo import NATURAL_WEIGHT, cheaper_nonzeros
from lossyless.coding.tables import CDFTables
from lossyless.rates.entropy_coded import to_cells

N_ROUNDS = 3  # alternations between choosing symbols and fitting tables


class ScalarQuantiser(NamedTuple):
    """Coding tables and reconstruction points of all coordinates.

    Attributes
    ----------
    rate : leave-one-out rate, in bits per row.
    error : squared error per row, in bits: one bit is `NATURAL_WEIGHT` squared cell widths.
    """

    tables: CDFTables
    means: CellMeans
    rate: float
    error: float

    @classmethod
    def fit(cls, x: NDArray[np.float64], beta: float, rdo: bool) -> "ScalarQuantiser":
        """Fit to rows x [N, D], in units of the cell widths for beta = 1."""
        width = math.sqrt(beta)
        totals = x.sum(0) / width
        where = np.flatnonzero((x > width / 2) | (x < -width / 2))  # other symbols are 0
        columns, values = where % x.shape[1], x.ravel()[where] / width

        def entries(symbols: NDArray[np.int32]) -> tuple[CDFTables, CellMeans, float]:
            is_found = symbols != 0
            found = NonZeros(columns[is_found], symbols[is_found], x.shape)
            tables, rate = fit_tables(found)
            return tables, CellMeans.fit(found, values[is_found], totals, tables), rate

        nearest = symbols = to_cells(torch.from_numpy(values), torch.zeros(()))
        tables, means, rate = entries(symbols)
        for _ in range(N_ROUNDS * rdo):
            symbols = cheaper_nonzeros(values, nearest, columns, tables, means)
            tables, means, rate = entries(symbols)

        zeros = means.offsets(np.arange(x.shape[1]), np.zeros(x.shape[1], np.int32))
        points = symbols + means.offsets(columns, symbols)
        # the error if all symbols were 0, plus a correction for those that are not
        error = np.vdot(x, x) / beta + (len(x) * zeros - 2 * totals) @ zeros
        error += (np.square(values - points) - np.square(values - zeros[columns])).sum()
        return cls(tables, means, rate, error / len(x) / NATURAL_WEIGHT)
