"""What a compressor costs and preserves: coded bits, times, squared error, accuracy, neighbours."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.model_selection import StratifiedKFold

from utils.benchmarks.fewer_bits.methods import Method
from utils.evaluation.linear import in_span

N_FOLDS = 4  # each split tests on a different quarter
# Weights of half the squared norm, added to the mean loss, for features with mean variance 1.
PENALTIES = (1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3)
MAX_ITERATIONS = 300  # of L-BFGS
N_NEIGHBOURS = 10


@dataclass(frozen=True)
class Split:
    """A data set, with indices of training rows (the last `n_val`: validation) and test rows."""

    Z: NDArray  # float32 [N, D]
    y: NDArray  # int64 [N]
    train: NDArray
    test: NDArray
    n_val: int

    @cached_property
    def neighbours(self) -> NDArray:
        """Neighbours of the test rows among the training rows; see `nearest`."""
        return nearest(self.Z[self.test], self.Z[self.train])


def splits(Z: NDArray, y: NDArray, n: int) -> Iterator[Split]:
    """Yield the first n splits: three quarters for training, of which a fifth is for validation."""
    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=0).split(Z, y)
    for (train, test), _ in zip(folds, range(n), strict=False):
        fit, val = next(StratifiedKFold(5, shuffle=True, random_state=0).split(train, y[train]))
        yield Split(Z, y, np.concatenate([train[fit], train[val]]), test, len(val))


def timed(function: Callable, *args: object) -> tuple[object, float]:
    """The result of a call and its CPU seconds, including those of child processes."""
    start = _cpu_seconds()
    return function(*args), _cpu_seconds() - start


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def apply(method: Method, split: Split) -> dict[str, float]:
    """Code the rows of a split with a fitted method; measure what the module docstring lists."""
    decoded = {}
    metrics = {}
    for name, rows in (("train", split.train), ("test", split.test)):
        payload, encode = timed(method.encode, split.Z[rows])
        decoded[name], decode = timed(method.decode, payload)
        metrics |= {f"bits_{name}": 8 * len(payload) / len(rows)}
        metrics |= {"encode_seconds": encode, "decode_seconds": decode}
    return metrics | quality(split, decoded["train"], decoded["test"])


def quality(split: Split, train: NDArray, test: NDArray) -> dict[str, float]:
    """Error, accuracy and neighbours of decoded rows.

    squared_error : relative to the variance of the test rows around the training mean.
    accuracy : on decoded test rows, of a classifier fitted to decoded training rows.
    recall : fraction of a test row's 10 nearest training rows that stay nearest after decoding.
    """
    true_train, true_test = split.Z[split.train], split.Z[split.test]
    variance = ((true_test - true_train.mean(0, dtype=float)) ** 2).sum()
    pairs = zip(nearest(test, train), split.neighbours, strict=True)
    found = [len(np.intersect1d(near, true)) for near, true in pairs]
    return {
        "squared_error": ((true_test - test) ** 2).sum(dtype=float) / variance,
        "accuracy": accuracy(train, split.y[split.train], test, split.y[split.test], split.n_val),
        "recall": np.mean(found) / N_NEIGHBOURS,
    }


def nearest(queries: NDArray, rows: NDArray) -> NDArray:
    """Indices [N, 10] of the rows nearest to each query, in any order."""
    distances = (rows**2).sum(1) - 2 * queries @ rows.T
    return np.argpartition(distances, N_NEIGHBOURS, axis=1)[:, :N_NEIGHBOURS]


def accuracy(x: NDArray, y: NDArray, x_test: NDArray, y_test: NDArray, n_val: int) -> float:
    """Test accuracy, in [0, 1], of multinomial logistic regression with an L2 penalty.

    The penalty is the one in PENALTIES with the smallest loss on the last `n_val` rows of x [N, D]
    after a fit to the rows before them; the final fit uses all rows.
    """
    mean = x.mean(0, dtype=float)
    scale = max(np.sqrt(((x - mean) ** 2).mean()), np.finfo(np.float32).tiny)
    parts = (((rows - mean) / scale, None) for rows in (x[:-n_val], x[-n_val:], x_test))
    (fit, _), (val, _), (test, _) = in_span(*parts)
    n_classes, losses, weights = y.max() + 1, [], []
    for penalty in PENALTIES:
        start = weights[-1] if weights else np.zeros((fit.shape[1] + 1, n_classes))
        weights.append(fit_softmax(fit, y[:-n_val], penalty, start))
        scores = log_softmax(_scores(val, weights[-1]), axis=1)
        losses.append(-scores[np.arange(n_val), y[-n_val:]].mean())
    best = int(np.argmin(losses))
    both = np.concatenate([fit, val])
    chosen = fit_softmax(both, y, PENALTIES[best], weights[best])
    return float((_scores(test, chosen).argmax(1) == y_test).mean())


def _scores(x: NDArray, weights: NDArray) -> NDArray:
    return x @ weights[:-1] + weights[-1]


def fit_softmax(x: NDArray, y: NDArray, penalty: float, start: NDArray) -> NDArray:
    """Fit logistic regression to x [N, D]; return weights [D + 1, C], intercepts last.

    Intercepts are not penalised. The columns of x should be uncorrelated: in the units in which
    L-BFGS optimises weights, all curvatures are then similar, so tens of iterations are enough.
    """
    n, shape = len(x), start.shape
    x = np.hstack([x, np.ones((n, 1))])
    penalties = np.full((shape[0], 1), penalty)
    penalties[-1] = 0
    units = 1 / np.sqrt((x**2).mean(0)[:, None] / shape[1] + penalties)
    x, penalties = (x * units[:, 0]).astype(np.float32), penalties * units**2
    rows = np.arange(n)

    def loss(flat: NDArray) -> tuple[float, NDArray]:
        w = flat.reshape(shape)
        scores = log_softmax(x @ w.astype(np.float32), axis=1)
        residuals = np.exp(scores)
        residuals[rows, y] -= 1
        gradient = x.T @ residuals / n + penalties * w
        return (penalties * w**2).sum() / 2 - scores[rows, y].mean(dtype=float), gradient.ravel()

    options = {"maxiter": MAX_ITERATIONS, "gtol": 1e-5, "ftol": 1e-6}
    found = minimize(loss, (start / units).ravel(), jac=True, method="L-BFGS-B", options=options)
    return found.x.reshape(shape) * units
