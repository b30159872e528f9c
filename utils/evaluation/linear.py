"""Linear evaluation: a linear classifier of scikit-learn on decoded representations.

The protocol of the paper for its CLIP compressor: a seeded random search over the penalty and the
class weights. A classifier is a subclass: see `svm` and `logistic_regression` beside this file.
"""

import warnings
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from joblib import parallel_config
from scipy.linalg import eigh
from scipy.stats import loguniform
from sklearn.base import ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score
from sklearn.model_selection import RandomizedSearchCV, StratifiedKFold, train_test_split
from sklearn.utils import compute_sample_weight
from torch import Tensor

from utils.configs.architectures import Evaluation

# Singular values, relative to the largest, that are no more than the rounding of float32.
ROUNDING = 1e-6

Split = tuple[np.ndarray, np.ndarray]  # representations float64 [N, D], classes int64 [N]


@dataclass(frozen=True)
class SearchedClassifier(Evaluation):
    """Chooses a penalty, fits a linear classifier with it, and measures its accuracy.

    Features keep their scale, as in the paper: C means a stronger penalty for smaller ones.

    The search compares its draws by the accuracy in cross-validation over training and validation
    examples; the test split plays no part. Beyond `max_cv_examples`, and where a class has fewer
    examples than there are folds, it compares them on the validation split, after fits to the
    training split.

    Parameters
    ----------
    n_draws : settings that are tried.
    n_folds : of the cross-validation.
    max_cv_examples : training and validation examples up to which there is cross-validation.
    max_search_examples : training examples that a search on the validation split fits to, drawn
        from each class alike; None: all. The final fits always see all examples.
    """

    n_draws: int = 16
    n_folds: int = 5
    max_cv_examples: int = 50_000
    max_search_examples: int | None = None

    #: what it is called in what is printed
    label: ClassVar[str]
    #: settings of the classifier, and what they are drawn from
    space: ClassVar[Mapping[str, object]] = {
        "C": loguniform(1e-3, 1),
        "class_weight": [None, "balanced"],
    }

    @abstractmethod
    def make(self, seed: int) -> ClassifierMixin:
        """A classifier that is yet to be fitted, penalised by the squared norm of its weights."""

    @abstractmethod
    def loss(
        self,
        machine: ClassifierMixin,
        x: np.ndarray,
        y: np.ndarray,
        weights: np.ndarray | None = None,
    ) -> float:
        """Mean loss of a fitted classifier for x [N, D] and classes y [N], weighted or not [N]."""

    def evaluate(
        self,
        splits: Mapping[str, tuple[Tensor, Tensor]],
        *,
        task: str,
        seed: int,
        n_jobs: int = 1,
    ) -> dict[str, float]:
        """See `Evaluation.evaluate`; x are vectors [N, D].

        loss, acc, err; and balanced_loss, ...: the same with every example weighted by 1 / the size
        of its class in the split. The classifier of test was fitted to training and validation
        split, that of validation to the training split alone, with a setting that the search chose
        on both.
        """
        if task != "classification":
            raise ValueError(
                f"a {self.label} is for classification, but the task is {task}: choose another "
                "architecture@predictor, such as mlp_probe"
            )
        train, val, test = _in_span(
            *(self._to_numpy(*splits[name]) for name in ("train", "val", "test"))
        )
        both = np.concatenate([train[0], val[0]]), np.concatenate([train[1], val[1]])
        chosen = self._search(*both, n_train=len(train[1]), seed=seed, n_jobs=n_jobs)
        print(f"[predictor] {self.label}: {chosen}")
        metrics: dict[str, float] = {}
        for name, seen, unseen in (("val", train, val), ("test", both, test)):
            machine = _fit(self.make(seed).set_params(**chosen), *seen)
            if np.max(machine.n_iter_) >= machine.max_iter:
                print(
                    f"[predictor] {self.label}: no convergence in {machine.max_iter} iterations; "
                    f"{name}/pred metrics may be below what a linear classifier can do"
                )
            metrics |= {f"{name}/pred/{k}": v for k, v in self._measure(machine, *unseen).items()}
        return metrics

    def _to_numpy(self, x: Tensor, y: Tensor) -> Split:
        if x.dim() != 2:
            raise ValueError(
                f"a {self.label} works on representations [N, D], not on examples "
                f"{list(x.shape[1:])}: choose another featurizer or architecture@predictor"
            )
        return x.double().numpy(), y.numpy()

    def _search(
        self, x: np.ndarray, y: np.ndarray, *, n_train: int, seed: int, n_jobs: int
    ) -> dict[str, object]:
        """The best of the drawn settings; x and y hold training examples, then validation ones."""
        search = RandomizedSearchCV(
            self.make(seed),
            self.space,
            n_iter=self.n_draws,
            scoring="accuracy",
            cv=self._folds(y, n_train=n_train, seed=seed),
            refit=False,
            n_jobs=n_jobs,
            random_state=seed,
            error_score="raise",
        )
        with (
            # of processes, for the random numbers of liblinear are those of a process
            parallel_config("loky"),
            warnings.catch_warnings(),
        ):
            # a draw that does not converge is judged by its accuracy like all others
            warnings.simplefilter("ignore", ConvergenceWarning)
            search.fit(x, y)
        return search.best_params_

    def _folds(
        self, y: np.ndarray, *, n_train: int, seed: int
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Rows to fit to and rows to compare draws on: folds of all examples, or the two splits."""
        counts = np.unique(y, return_counts=True)[1]
        if len(y) <= self.max_cv_examples and counts.min() >= self.n_folds:
            folds = StratifiedKFold(self.n_folds, shuffle=True, random_state=seed)
            return list(folds.split(y, y))
        rows, held_out = np.arange(n_train), np.arange(n_train, len(y))
        if self.max_search_examples is not None and n_train > self.max_search_examples:
            rows, _ = train_test_split(
                rows,
                train_size=self.max_search_examples,
                stratify=y[:n_train],
                random_state=seed,
            )
        return [(rows, held_out)]

    def _measure(self, machine: ClassifierMixin, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
        predicted, metrics = machine.predict(x), {}
        for prefix, weights in (("", None), ("balanced_", compute_sample_weight("balanced", y))):
            acc = float(accuracy_score(y, predicted, sample_weight=weights))
            loss = float(self.loss(machine, x, y, weights))
            metrics |= {f"{prefix}loss": loss, f"{prefix}acc": acc, f"{prefix}err": 1 - acc}
        return metrics


def _fit(machine: ClassifierMixin, x: np.ndarray, y: np.ndarray) -> ClassifierMixin:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # n_iter_ tells
        return machine.fit(x, y)


def _in_span(train: Split, val: Split, test: Split) -> tuple[Split, Split, Split]:
    """The same examples by orthonormal axes [D, R] of the span of those that are fitted to.

    Weights of a linear classifier lie in that span, and its penalty does not depend on the axes, so
    they change nothing but the time: principal components that were decoded to vectors of 1280
    dimensions are solved for as the 16 numbers that they are.
    """
    x = np.concatenate([train[0], val[0]])
    variances, axes = eigh(x.T @ x)  # the largest come last
    axes = axes[:, variances >= ROUNDING**2 * variances[-1]]
    return tuple((x @ axes, y) for x, y in (train, val, test))
