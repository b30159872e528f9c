"""Transform coding of vectors, fitted without gradients."""

import functools
import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from torch import Tensor

from lossyless.base import blocks
from lossyless.coding.ans import TableCoder
from lossyless.coding.cell_means import CellMeans
from lossyless.coding.codebooks import Codebook
from lossyless.coding.histograms import NonZeros, fit_tables
from lossyless.coding.rdo import cheaper_cells
from lossyless.coding.tables import CDFTables
from lossyless.rates.entropy_coded import to_cells
from lossyless.rates.transforms import (
    klt_basis,
    n_determined_by,
    rotate_with_integers,
    round_matrix,
)
from lossyless.scalar_quantiser import ScalarQuantiser
from lossyless.torch_state import one_thread
from lossyless.vector_codecs import FittedCodec

CLUSTERS_PER_ROW = 2 / 3  # upper bound
RIDGE = 0.01  # added to the variances that weight the error, relative to their mean
MAX_RATE = 10  # largest target in bits per dimension: tables list 4096 symbols
# Search for `rate_target`, in log rate and log beta. STEP is the typical size of a change in log
# beta relative to the change in log rate.
RATE_TOLERANCE, TOLERANCE, MIN_LOG_BETA = 0.005, 0.01, -30.0
STEP, SMALLEST_STEP = 1.6, 0.3


class KLTVectors(FittedCodec):
    """Transform coding of vectors: a KLT, a cell width per coordinate, and an entropy coder.

        z --(U^T (z - mean))--> y --(/ widths, - centre, RDO)--> symbols --tables--> bytes

    It minimises

        (z_hat - z)' W (z_hat - z) / v  +  beta * rate                              (nats)

    where v is the variance of the vectors, averaged over dimensions, and W is a power of their
    covariance C plus a ridge, scaled so that W C and C have the same trace:

        W  proportional to  (C + v / 100)^weighting

    A downstream linear task is a direction in space. If such directions are distributed like the
    data, errors along directions of large variance matter more, so they have larger weights. In
    the KLT basis, W is diagonal, so it only changes the cell widths sqrt(6 beta v / W_ii), which
    minimise the loss at high rates. Each cell is decoded to the mean of the training values in it,
    shrunk towards the middle of the cell.

    If this lowers the leave-one-out loss, each vector is predicted by a cluster centre (see
    `coding.codebooks`). The symbols are then those of the residual and the cluster index.

    Parameters
    ----------
    z_dim : see `VectorCodec`.
    beta : weight of the rate; larger = fewer bits.
    weighting : exponent of the covariance; 0 gives the squared error.
    rdo : whether to choose symbols by loss (see `coding.rdo`) rather than by distance.
    rate_target : bits per vector. If given, `beta` is chosen such that `rate` is within 1 % of it.
        With few distinct vectors, the rate is not continuous in `beta`, so the deviation can be
        larger, for example 8 % for 100 vectors at 3 bits each.
    n_clusters : maximum number of clusters; 0: none.

    Attributes
    ----------
    rate : leave-one-out rate of the training vectors, in bits per vector: an estimate of the rate
        of new vectors. The basis and the widths are fitted to all vectors, so the estimate is too
        low if there are only a few more vectors than dimensions.
    """

    format_name = "klt"

    def __init__(
        self,
        z_dim: int,
        beta: float = 1.0,
        weighting: float = 0.0,
        rdo: bool = True,
        rate_target: float | None = None,
        n_clusters: int = 0,
    ):
        super().__init__(z_dim)
        for name, value in (("beta", beta), ("rate_target", rate_target)):
            if value is not None and not value > 0:
                raise ValueError(f"{name}={value}: expected a positive number")
        self.beta, self.weighting, self.rdo, self.rate_target = beta, weighting, rdo, rate_target
        self.n_clusters = n_clusters
        self.register_buffer("matrix", torch.zeros(z_dim, z_dim))
        self.register_buffer("mean", torch.zeros(z_dim, dtype=torch.float64))
        self.register_buffer("widths", torch.ones(z_dim, dtype=torch.float64))
        self.register_buffer("rate", torch.zeros((), dtype=torch.float64))
        self._tables: CDFTables | None = None
        self._means: CellMeans | None = None
        self._book: Codebook | None = None
        self._coded_tables: CDFTables | None = None

    # --- fitting

    def _fit(self, z: Tensor) -> None:
        # the last digits of the basis depend on the number of threads
        with one_thread():
            self.mean.copy_(z.mean(0))
            self.matrix.copy_(round_matrix(klt_basis(z - self.mean)))
            y = self._rotate(z).numpy()
        widths = self._widths(y)
        self._fit_symbols(y / widths)
        self.widths.copy_(torch.from_numpy(widths * math.sqrt(self.beta)))

    def _fit_symbols(self, x: NDArray[np.float64]) -> None:
        """Fit all but the basis and widths to x [N, D], in units of cell widths for beta = 1."""
        n = min(self.n_clusters, int(len(x) * CLUSTERS_PER_ROW))
        book, residuals, index_rate = Codebook.fit(x, n) if n > 1 else (None, x, 0.0)
        if self.rate_target is not None:
            lowest = self._lowest_rate(x)
            if 2 * index_rate > self.rate_target or index_rate + lowest >= self.rate_target:
                book, residuals, index_rate = None, x, 0.0  # indices would take too many bits
        beta, fit = self._fit_beta(residuals, index_rate)
        if book is not None:
            without = ScalarQuantiser.fit(x, beta, self.rdo)
            if without.rate + without.error <= index_rate + fit.rate + fit.error:
                book, index_rate = None, 0.0
                beta, fit = self._fit_beta(x, 0.0, start=math.log(beta))
        self.beta, self._book = beta, book and book._replace(step=book.step / math.sqrt(beta))
        self._tables, self._means = fit.tables, fit.means
        self.rate.fill_(fit.rate + index_rate)
        self._join_tables()

    def _lowest_rate(self, x: NDArray[np.float64]) -> float:
        """Return the rate of vectors x [N, D] when all symbols are 0, as they are for a large beta.

        Raises ValueError unless `rate_target` exceeds this rate.
        """
        none = np.zeros(0, np.int32)
        _, lowest = fit_tables(NonZeros(none, none, x.shape))
        if self.rate_target <= lowest:
            raise ValueError(
                f"rate_target={self.rate_target}: {x.shape[1]} columns take more than {lowest:.2g} "
                f"bits per row with tables fitted to {len(x)} rows"
            )
        return lowest

    def _widths(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the cell widths [D] at beta = 1 for vectors y [N, D] in the KLT basis."""
        variances = y.var(0)
        rest = variances[n_determined_by(len(y)) :]
        rest[:] = rest.mean() if len(rest) else 0.0  # undetermined directions share a width
        v = variances.mean()
        if v == 0:  # all vectors are identical
            return np.full(len(variances), max(np.abs(self.mean.numpy()).max(), 1.0))
        weights = (variances / v + RIDGE) ** self.weighting
        return np.sqrt(6 * v * np.average(weights, weights=variances) / weights)

    def _fit_beta(
        self, x: NDArray[np.float64], index_rate: float, start: float = 0.0
    ) -> tuple[float, ScalarQuantiser]:
        """Return the given beta, or one that reaches the rate target, and the quantiser for it.

        x [N, D] are vectors or residuals, in units of the cell widths for beta = 1. `index_rate` is
        the rate of the cluster indices, and `start` the log beta from which to search.
        """
        if self.rate_target is None:
            return self.beta, ScalarQuantiser.fit(x, self.beta, self.rdo)
        most = MAX_RATE * self.z_dim
        if self.rate_target > most:
            raise ValueError(
                f"rate_target={self.rate_target}: expected at most {most} ({MAX_RATE} per column)"
            )

        @functools.cache
        def fit(log_beta: float) -> ScalarQuantiser:
            return ScalarQuantiser.fit(x, math.exp(log_beta), self.rdo)

        def excess(log_beta: float) -> float:
            value = math.log(max(fit(log_beta).rate + index_rate, 1e-9) / self.rate_target)
            return value if abs(value) > RATE_TOLERANCE else 0.0

        def step(log_beta: float) -> float:
            return max(STEP * abs(excess(log_beta)), SMALLEST_STEP)

        low = high = start
        while excess(high) > 0:
            low, high = high, high + step(high)
        while excess(low) < 0:
            low, high = low - step(low), low
            if low < MIN_LOG_BETA:
                raise ValueError(
                    f"rate_target={self.rate_target}: the vectors vary too little for that, or "
                    "their columns have very different units: standardise them"
                )
        log_beta = brentq(excess, low, high, xtol=TOLERANCE) if low < high else start
        return math.exp(log_beta), fit(log_beta)

    # --- coding

    def _rotate(self, z: Tensor) -> Tensor:
        """U^T (z - mean), float64 [N, D], bit-identical for every batch size and thread count."""
        return rotate_with_integers(z.double() - self.mean, self.matrix)

    def _encode(self, z: Tensor) -> NDArray[np.int32]:
        symbols = np.empty((len(z), self._coded_tables.n_tables), np.int32)
        for rows in blocks(len(z)):
            x = (self._rotate(z[rows]) / self.widths).numpy()
            if self._book is not None:
                symbols[rows, -1] = index = self._book.choose(x)
                x -= self._book.predict(index, self.z_dim)
            cells = _rounded(x)
            if self.rdo:
                cells = cheaper_cells(x, cells, self._tables, means=self._means)
            symbols[rows, : self.z_dim] = cells
        return symbols

    def _decode(self, symbols: NDArray[np.int32]) -> Tensor:
        z_hat = torch.empty((len(symbols), self.z_dim), dtype=self.z_dtype)
        for rows in blocks(len(symbols)):
            x = self._means.decode(symbols[rows, : self.z_dim])
            if self._book is not None:
                x += self._book.predict(symbols[rows, -1], self.z_dim)
            y = torch.from_numpy(x) * self.widths
            z_hat[rows] = (rotate_with_integers(y, self.matrix.T) + self.mean).to(self.z_dtype)
        return z_hat

    def _fitted_coder(self) -> TableCoder:
        return TableCoder(self._coded_tables)

    def rates(self, z: Tensor) -> Tensor:
        """Rates [N], in nats, of vectors [N, z_dim] under the tables."""
        bits = self.coder().information(self.quantise(z)).sum(1)
        return torch.from_numpy(bits * math.log(2))

    def errors(self, z: Tensor, z_hat: Tensor) -> Tensor:
        """Weighted errors [N] of the loss, for vectors z and decoded vectors z_hat [N, z_dim]."""
        errors = rotate_with_integers(z.double() - z_hat.double(), self.matrix)
        return 6 * self.beta * (errors / self.widths).square().sum(1)

    def _join_tables(self) -> None:
        """Join the tables of coordinates and clusters; the cluster index is the last symbol."""
        parts = [self._tables, *([self._book.tables] if self._book else [])]
        self._coded_tables = CDFTables.joined(parts)

    # The sizes of tables and means depend on the data. Rows are saved without padding.
    def get_extra_state(self) -> dict:
        if self._tables is None:
            return {}
        lengths = self._tables.lengths
        book = {}
        if self._book is not None:
            book = {
                "centres": torch.from_numpy(self._book.centres),
                "step": torch.tensor(self._book.step, dtype=torch.float64),
                "index_cdfs": torch.tensor(self._book.tables.cdfs),
            }
        return book | {
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
            self._book = None
            if "centres" in state:
                centres, cdfs = state["centres"].cpu().numpy(), state["index_cdfs"].cpu().numpy()
                tables = CDFTables(cdfs, [cdfs.shape[1]], [0])
                self._book = Codebook(centres, float(state["step"]), tables)
            self._join_tables()


def _without_padding(rows: NDArray, lengths: NDArray[np.int32]) -> NDArray:
    """Concatenate the first lengths[i] values of each row i of `rows` [D, L]."""
    return rows[np.arange(rows.shape[1]) < lengths[:, None]]


def _padded(values: NDArray, lengths: NDArray[np.int32]) -> NDArray:
    """Invert `_without_padding`: return the rows [D, L], padded with zeros."""
    rows = np.zeros((len(lengths), lengths.max()), values.dtype)
    rows[np.arange(rows.shape[1]) < lengths[:, None]] = values
    return rows


def _rounded(x: NDArray[np.float64]) -> NDArray[np.int32]:
    return to_cells(torch.from_numpy(x), torch.zeros(()))
