"""Codebooks: each row is predicted by the centre of a cluster.

A few bits identify a row's cluster, on which many coordinates depend. The residual is coded as
usual.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from lossyless.base import blocks
from lossyless.coding.rdo import NATURAL_WEIGHT
from lossyless.coding.tables import CDFTables

MAX_COORDINATES = 128  # centres are 0 in all others
N_ITERATIONS = 5  # of Lloyd's algorithm
LARGEST = 2**15 - 1  # in steps; sums of products are then exact in float64
# pseudo-counts that shrink a centre towards 0; each coordinate chooses one
SHRINKAGES = np.array([0.25, 0.5, 1.0, 2.0, 4.0, 8.0, np.inf])


class Codebook(NamedTuple):
    """Cluster centres, which predict the first L coordinates of a row.

    Attributes
    ----------
    centres : int16 [K, L], in steps.
    step : size of a step, in cell widths.
    tables : the coding table of the cluster indices.
    """

    centres: NDArray[np.int16]
    step: float
    tables: CDFTables

    @classmethod
    def fit(cls, x: NDArray[np.float64], n: int) -> tuple["Codebook", NDArray[np.float64], float]:
        """Fit a codebook with n > 1 clusters to rows x [N, D], in cell widths.

        Also returns the residuals [N, D] and the mean rate of the rows' indices in bits, both
        leave-one-out: a row is not part of its cluster when it is predicted. A centre is the mean
        of its cluster, shrunk towards 0 by amounts that minimise the leave-one-out errors.
        """
        lead = x[:, :MAX_COORDINATES]
        step = max(np.abs(lead).max(), np.finfo(np.float32).tiny) / LARGEST
        integers = np.rint(lead / step)
        labels = _clusters(integers, n)
        centres, own = _shrunk_means(integers, labels, n)

        index = np.empty(len(x), np.int64)
        for rows in blocks(len(x)):
            distances = _distances(integers[rows], centres)
            own_distances = (own[rows] * (own[rows] - 2 * integers[rows])).sum(1)
            np.put_along_axis(distances, labels[rows, None], own_distances[:, None], axis=1)
            index[rows] = distances.argmin(1)
        residuals = x.copy()
        is_own = (index == labels)[:, None]
        residuals[:, : lead.shape[1]] -= step * np.where(is_own, own, centres[index])

        counts = np.bincount(index, minlength=n)  # each count is increased by 1/2 below
        tables = CDFTables.from_weights(np.append(2 * counts + 1, 0)[None], [n + 2], [0])
        rate = -np.log2((2 * counts[index] - 1) / (2 * len(x) - 2 + n)).mean()
        return cls(centres.astype(np.int16), step, tables), residuals, float(rate)

    def choose(self, x: NDArray[np.float64]) -> NDArray[np.int64]:
        """For each row of x [N, D], choose the cluster with the lowest cost (see `coding.rdo`)."""
        n, n_coordinates = self.centres.shape
        steps = np.rint(x[:, :n_coordinates] / self.step).clip(-8 * LARGEST, 8 * LARGEST)
        bits = -np.log2(np.diff(self.tables.cdfs[0, : n + 1]) / self.tables.cdfs[0, -1])
        distances = _distances(steps, self.centres.astype(np.float64))
        return (distances + NATURAL_WEIGHT * bits / self.step**2).argmin(1)

    def predict(self, index: NDArray[np.integer], dim: int) -> NDArray[np.float64]:
        """Return the centres [N, dim] of the clusters `index` [N], in cell widths."""
        n, n_coordinates = self.centres.shape
        x = np.zeros((len(index), dim))
        x[:, :n_coordinates] = self.centres[index.clip(0, n - 1)] * self.step
        return x


def _clusters(x: NDArray[np.float64], n: int) -> NDArray[np.int64]:
    """Cluster the rows of integers x [N, L] by k-means (Lloyd's algorithm); return labels [N].

    Centres are rounded to integers, so that results do not depend on the number of threads.
    """
    centres = x[np.arange(n) * len(x) // n]
    for _ in range(N_ITERATIONS):
        labels = _nearest(x, centres)
        counts, sums = _sums(x, labels, n)
        centres = np.where(counts[:, None] > 0, np.rint(sums / counts[:, None].clip(1)), centres)
    return _nearest(x, centres)


def _shrunk_means(
    x: NDArray[np.float64], labels: NDArray[np.int64], n: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Integer centres [n, L], and each row's centre [N, L], computed without that row."""
    counts, sums = _sums(x, labels, n)
    others, n_others = sums[labels] - x, counts[labels, None] - 1
    errors = [np.square(x - others / (n_others + s)).sum(0) for s in SHRINKAGES]
    shrinkages = SHRINKAGES[np.argmin(errors, axis=0)]
    return np.rint(sums / (counts[:, None] + shrinkages)), np.rint(others / (n_others + shrinkages))


def _sums(x: NDArray, labels: NDArray[np.int64], n: int) -> tuple[NDArray, NDArray]:
    """Number [n] and sum [n, L] of the rows of x [N, L] with each label."""
    members = csr_array((np.ones(len(x)), labels, np.arange(len(x) + 1)), (len(x), n))
    return np.bincount(labels, minlength=n), members.T @ x


def _nearest(x: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.int64]:
    """For each row of integers x [N, L], the index of the nearest of the centres [K, L]."""
    return np.concatenate([_distances(x[r], centres).argmin(1) for r in blocks(len(x))])


def _distances(x: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared distances [N, K] of integers x [N, L] from centres [K, L], minus |x|^2."""
    return np.square(centres).sum(1) - 2 * x @ centres.T
