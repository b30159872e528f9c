"""Transform coding of vectors, fitted in closed form."""

import functools
import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from torch import Tensor

from lossyless.coding.ans import TableCoder
from lossyless.coding.cell_means import CellMeans
from lossyless.coding.histograms import NonZeros, fit_tables
from lossyless.coding.rdo import cheaper_cells
from lossyless.coding.tables import CDFTables
from lossyless.rates.entropy_coded import blocks, to_cells
from lossyless.rates.transforms import (
    klt_basis,
    n_determined_by,
    rotate_with_integers,
    round_matrix,
)
from lossyless.torch_state import one_thread
from lossyless.vector_codecs import FittedCodec

N_ROUNDS = 3  # of choosing symbols for given tables, and tables for given symbols
RIDGE = 0.01  # added to the variances in the weighted error, relative to their mean
MAX_RATE = 10  # largest target in bits per dimension: tables list 4096 symbols
# of the search for a rate, in log beta: a rate changes by less than its own share
SEARCH_STEP, TOLERANCE, MIN_LOG_BETA = 2.0, 0.01, -30.0


class KLTVectors(FittedCodec):
    """Transform coding of vectors: a KLT, a cell width per coordinate, and an entropy coder.

        z --(U^T (z - mean))--> y --(/ widths, RDO)--> symbols --tables--> bytes

    It minimises

        (z_hat - z)' W (z_hat - z) / v  +  beta * rate                              (nats)

    where v is the variance of the vectors, averaged over dimensions, and W a power of their
    covariance C, regularised, with the trace of W C that of C:

        W  proportional to  (C + v / 100)^weighting

    A later linear task is a direction in space. If such directions are distributed like the data,
    errors along directions of large variance matter more to tasks; these have a larger weight. In
    the basis of the KLT, W is diagonal, so it only changes the cell widths sqrt(6 beta v / W_ii),
    which minimise the loss at high rates. Cells are decoded to the means of the training vectors in
    them.

    Parameters
    ----------
    z_dim : see `VectorCodec`.
    beta : weight of the rate; larger = fewer bits.
    weighting : exponent of the covariance; 0 is the squared error.
    rdo : whether to choose the symbols by the loss, see `coding.rdo`, or the nearest ones.
    rate_target : bits per vector. If given, `beta` is chosen such that the leave-one-out rate is
        within 1 % of it.

    Attributes
    ----------
    rate : leave-one-out rate of the training vectors, in bits per vector: an estimate of the rate
        of new vectors.
    """

    format_name = "klt"

    def __init__(
        self,
        z_dim: int,
        beta: float = 1.0,
        weighting: float = 0.0,
        rdo: bool = True,
        rate_target: float | None = None,
    ):
        super().__init__(z_dim)
        self.beta, self.weighting, self.rdo, self.rate_target = beta, weighting, rdo, rate_target
        self.register_buffer("matrix", torch.zeros(z_dim, z_dim))
        self.register_buffer("mean", torch.zeros(z_dim, dtype=torch.float64))
        self.register_buffer("widths", torch.ones(z_dim, dtype=torch.float64))
        self.register_buffer("rate", torch.zeros((), dtype=torch.float64))
        self._tables: CDFTables | None = None
        self._means: CellMeans | None = None

    # --- fitting

    def _fit(self, z: Tensor) -> None:
        # the last digits of the basis depend on the number of threads
        with one_thread():
            self.mean.copy_(z.mean(0))
            self.matrix.copy_(round_matrix(klt_basis(z - self.mean)))
            y = self._rotate(z).numpy()
        widths = self._widths(y)
        if self.rate_target is not None:
            self.beta = self._search(y / widths)
        self.widths.copy_(torch.from_numpy(widths * math.sqrt(self.beta)))
        self.rate.fill_(self._fit_tables(y / self.widths.numpy()))

    def _widths(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Cell widths [D] for beta = 1 of vectors y [N, D] in the basis of the KLT."""
        variances = y.var(0)
        rest = variances[n_determined_by(len(y)) :]
        rest[:] = rest.mean() if len(rest) else 0.0  # an arbitrary basis: one width
        v = variances.mean()
        if v == 0:  # all vectors are equal
            return np.full(len(variances), max(np.abs(self.mean.numpy()).max(), 1.0))
        weights = (variances / v + RIDGE) ** self.weighting
        return np.sqrt(6 * v * np.average(weights, weights=variances) / weights)

    def _search(self, x: NDArray[np.float64]) -> float:
        """The beta of the rate target, for vectors x [N, D] in cell widths for beta = 1."""
        most = MAX_RATE * self.z_dim
        if self.rate_target > most:
            raise ValueError(f"rate_target={self.rate_target}: expected at most {most} bits")

        @functools.cache
        def excess(log_beta: float) -> float:
            rate = self._fit_tables(x * math.exp(-log_beta / 2))
            return math.log(max(rate, 1e-9) / self.rate_target)

        low = high = 0.0
        while excess(high) > 0:
            high += SEARCH_STEP
        while excess(low) < 0:
            low -= SEARCH_STEP
            if low < MIN_LOG_BETA:
                raise ValueError(
                    f"rate_target={self.rate_target}: the vectors vary too little for it"
                )
        return math.exp(brentq(excess, low, high, xtol=TOLERANCE)) if low < high else 1.0

    def _fit_tables(self, x: NDArray[np.float64]) -> float:
        """Fit tables and points to vectors x [N, D], in cell widths; returns the rate in bits."""
        nearest = symbols = _rounded(x)
        rate = self._fit_entries(x, symbols)
        for _ in range(N_ROUNDS * self.rdo):
            symbols = self._choose(x, nearest)
            rate = self._fit_entries(x, symbols)
        return rate

    def _fit_entries(self, x: NDArray[np.float64], symbols: NDArray[np.int32]) -> float:
        found = NonZeros.of(symbols)
        self._tables, rate = fit_tables(found)
        self._means = CellMeans.fit(x, found, self._tables)
        return rate

    # --- coding

    def _rotate(self, z: Tensor) -> Tensor:
        """U^T (z - mean) [N, D], float64, the same bits for every batch size and thread count."""
        return rotate_with_integers(z.double() - self.mean, self.matrix)

    def _choose(self, x: NDArray[np.float64], nearest: NDArray[np.int32]) -> NDArray[np.int32]:
        return cheaper_cells(x, nearest, self._tables, means=self._means)

    def _encode(self, z: Tensor) -> NDArray[np.int32]:
        symbols = np.empty(z.shape, np.int32)
        for rows in blocks(len(z)):
            x = (self._rotate(z[rows]) / self.widths).numpy()
            nearest = _rounded(x)
            symbols[rows] = self._choose(x, nearest) if self.rdo else nearest
        return symbols

    def _decode(self, symbols: NDArray[np.int32]) -> Tensor:
        z_hat = torch.empty(symbols.shape, dtype=self.z_dtype)
        for rows in blocks(len(symbols)):
            y = torch.from_numpy(self._means.decode(symbols[rows])) * self.widths
            z_hat[rows] = (rotate_with_integers(y, self.matrix.T) + self.mean).to(self.z_dtype)
        return z_hat

    def _fitted_coder(self) -> TableCoder:
        return TableCoder(self._tables)

    def errors(self, z: Tensor, z_hat: Tensor) -> Tensor:
        """The weighted errors of the loss, [N], for vectors and decoded vectors [N, z_dim]."""
        errors = rotate_with_integers(z.double() - z_hat.double(), self.matrix)
        return 6 * self.beta * (errors / self.widths).square().sum(1)

    # The sizes of tables and means depend on the data. Rows are saved without padding.
    def get_extra_state(self) -> dict:
        if self._tables is None:
            return {}
        lengths = self._tables.lengths
        return {
            "lengths": torch.tensor(lengths, device="cpu"),
            "offsets": torch.tensor(self._tables.offsets, device="cpu"),
            "cdfs": torch.from_numpy(_without_padding(self._tables.cdfs, lengths)),
            "means": torch.from_numpy(_without_padding(self._means.steps, lengths - 2)),
            "beta": float(self.beta),
            "rdo": bool(self.rdo),
        }

    def set_extra_state(self, state: dict) -> None:
        if state:
            arrays = ("lengths", "offsets", "cdfs", "means")
            lengths, offsets, cdfs, means = (state[name].cpu().numpy() for name in arrays)
            self._tables = CDFTables(_padded(cdfs, lengths), lengths, offsets)
            self._means = CellMeans(_padded(means, lengths - 2), self._tables)
            self.beta, self.rdo = state["beta"], state["rdo"]


def _without_padding(rows: NDArray, lengths: NDArray[np.int32]) -> NDArray:
    """The first `lengths` [D] values of each row [D, L], one row after the other."""
    return rows[np.arange(rows.shape[1]) < lengths[:, None]]


def _padded(values: NDArray, lengths: NDArray[np.int32]) -> NDArray:
    """Rows [D, L] of the values of `_without_padding`, with zeros as padding."""
    rows = np.zeros((len(lengths), lengths.max()), values.dtype)
    rows[np.arange(rows.shape[1]) < lengths[:, None]] = values
    return rows


def _rounded(x: NDArray[np.float64]) -> NDArray[np.int32]:
    return to_cells(torch.from_numpy(x), torch.zeros(()))
