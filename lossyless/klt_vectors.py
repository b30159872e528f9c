"""Transform coding of vectors, fitted in closed form."""

import functools
import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from torch import Tensor

from lossyless.coding.ans import TableCoder
from lossyless.coding.histograms import count, fit_tables
from lossyless.coding.rdo import cheaper_cells
from lossyless.coding.tables import CDFTables
from lossyless.rates.entropy_coded import blocks, tables_from_state, tables_to_state, to_cells
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
POINT_STEPS = 128  # points are multiples of 1 / 128 of a cell
SHRINKAGE = 2.0  # counts that draw a point to the middle of its cell
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
        self._points = np.zeros((z_dim, 1), np.int8)

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
                raise ValueError(f"rate_target={self.rate_target}: vectors vary too little for it")
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
        self._tables, rate = fit_tables(symbols)
        entries, is_listed = self._entries(symbols)
        length = self._tables.cdfs.shape[1] - 1
        n = count(entries, length, is_listed.astype(float))
        points = count(entries, length, (x - symbols) * is_listed) / (n + SHRINKAGE)
        points = np.round(points * POINT_STEPS).clip(-POINT_STEPS, POINT_STEPS - 1)
        self._points = points.astype(np.int8)
        return rate

    # --- coding

    def _rotate(self, z: Tensor) -> Tensor:
        """U^T (z - mean) [N, D], float64, the same bits for every batch size and thread count."""
        return rotate_with_integers(z.double() - self.mean, self.matrix)

    def _choose(self, x: NDArray[np.float64], nearest: NDArray[np.int32]) -> NDArray[np.int32]:
        points = self._points / POINT_STEPS
        return cheaper_cells(x, nearest, self._tables, points=points)

    def _entries(self, symbols: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Entries of symbols [N, D], 0 if their table does not list them; and whether it does."""
        entries = symbols.astype(np.int64) - self._tables.offsets
        is_listed = (entries >= 0) & (entries < self._tables.escapes)
        return np.where(is_listed, entries, 0), is_listed

    def _encode(self, z: Tensor) -> NDArray[np.int32]:
        symbols = np.empty(z.shape, np.int32)
        for rows in blocks(len(z)):
            x = (self._rotate(z[rows]) / self.widths).numpy()
            nearest = _rounded(x)
            symbols[rows] = self._choose(x, nearest) if self.rdo else nearest
        return symbols

    def _decode(self, symbols: NDArray[np.int32]) -> Tensor:
        z_hat = torch.empty(symbols.shape, dtype=self.z_dtype)
        columns = np.arange(self.z_dim)
        for rows in blocks(len(symbols)):
            entries, is_listed = self._entries(symbols[rows])
            points = np.where(is_listed, self._points[columns, entries], 0) / POINT_STEPS
            y = torch.from_numpy(symbols[rows] + points) * self.widths
            z_hat[rows] = (rotate_with_integers(y, self.matrix.T) + self.mean).to(self.z_dtype)
        return z_hat

    def _fitted_coder(self) -> TableCoder:
        return TableCoder(self._tables)

    def errors(self, z: Tensor, z_hat: Tensor) -> Tensor:
        """The weighted errors of the loss, [N], for vectors and decoded vectors [N, z_dim]."""
        errors = rotate_with_integers(z.double() - z_hat.double(), self.matrix)
        return 6 * self.beta * (errors / self.widths).square().sum(1)

    # Tables and points depend on the data in their shape, so they are not buffers.
    def get_extra_state(self) -> dict:
        if self._tables is None:
            return {}
        return {
            "tables": tables_to_state(self._tables),
            "points": torch.from_numpy(self._points.copy()),
            "beta": float(self.beta),
            "rdo": bool(self.rdo),
        }

    def set_extra_state(self, state: dict) -> None:
        if state:
            self._tables = tables_from_state(state["tables"])
            self._points = state["points"].cpu().numpy()
            self.beta, self.rdo = state["beta"], state["rdo"]


def _rounded(x: NDArray[np.float64]) -> NDArray[np.int32]:
    return to_cells(torch.from_numpy(x), torch.zeros(()))
