"""Predictors that are not neural networks: scikit-learn's linear classifiers on decoded
representations.

Linear evaluation is the paper's protocol for its CLIP compressor: a seeded random search over the
penalty and the class weights. To add a classifier, subclass `LinearEvaluation`.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from hydra.utils import instantiate
from joblib import parallel_config
from numpy.typing import NDArray
from omegaconf import DictConfig
from scipy.linalg import eigh
from scipy.stats import loguniform
from sklearn.base import ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, hinge_loss, log_loss
from sklearn.model_selection import RandomizedSearchCV, StratifiedKFold, train_test_split
from sklearn.svm import LinearSVC
from sklearn.utils import compute_sample_weight
from torch import Tensor

from utils.configs.checks import ConfigError, is_network

# Singular values below this fraction of the largest one are float32 rounding errors.
ROUNDING = 1e-6
MAX_ITERATIONS = 1000  # of L-BFGS

Splits = Mapping[str, tuple[Tensor, Tensor]]
Metrics = dict[str, float]
Split = tuple[NDArray, NDArray]  # representations float64 [N, D], classes int64 [N]


class Evaluation(ABC):
    """A predictor that is not a neural network and fits its own model to decoded data."""

    @abstractmethod
    def evaluate(self, splits: Splits, *, task: str, seed: int, n_jobs: int = 1) -> Metrics:
        """Compute metrics `<split>/pred/<name>` for "val" and "test", deterministic given `seed`.

        Parameters
        ----------
        splits : (x [N, *shape], y) for each of "train", "val" and "test", on the CPU.
        task : "classification" (y int64 [N]) or "regression" (y float32 [N, D]).
        seed : seed for all random number generators.
        n_jobs : maximum number of parallel processes.

        Raises
        ------
        ValueError
            If the evaluation does not support these targets or examples.
        """


def find_evaluation(cfg: DictConfig) -> Evaluation | None:
    """The evaluation chosen as `architecture@predictor`; None for a network."""
    if is_network(cfg.predictor):
        return None
    evaluation = instantiate(cfg.predictor.kwargs)
    if not isinstance(evaluation, Evaluation):
        raise ConfigError(
            f"architecture@predictor={cfg.predictor.name}: {type(evaluation).__name__} is neither "
            "a network, whose config file sets `_partial_: true`, nor a subclass of "
            f"{__name__}.Evaluation: correct the file or the class"
        )
    return evaluation


@dataclass(frozen=True)
class LinearEvaluation(Evaluation):
    """Tune the hyperparameters of a linear classifier, fit it, and measure its accuracy.

    As in the paper, features are not rescaled: the same C penalises smaller features more strongly.

    The search ranks candidates by cross-validated accuracy on the training and validation examples;
    it never uses the test split. If training and validation have over `max_cv_examples` examples
    in all, or a class has fewer examples than there are folds, candidates are instead fitted to the
    training split and ranked on the validation split. The final fits use whole splits.
    """

    n_draws: int = 16  # number of candidates
    n_folds: int = 5  # cross-validation folds
    max_cv_examples: int = 50_000  # limit on training plus validation examples
    #: number of training examples, stratified by class, that candidates are fitted to if they are
    #: ranked on the validation split; None: all
    max_search_examples: int | None = None

    #: name of the classifier in messages
    label: ClassVar[str]
    #: distributions of the hyperparameters
    space: ClassVar[Mapping[str, object]] = {
        "C": loguniform(1e-3, 1),
        "class_weight": [None, "balanced"],
    }

    @abstractmethod
    def make(self, seed: int) -> ClassifierMixin:
        """Return an unfitted classifier that penalises the squared norm of its weights."""

    @abstractmethod
    def loss(
        self, clf: ClassifierMixin, x: NDArray, y: NDArray, weights: NDArray | None = None
    ) -> float:
        """Mean loss of a fitted classifier on x [N, D] and classes y [N], with weights [N]."""

    def evaluate(self, splits: Splits, *, task: str, seed: int, n_jobs: int = 1) -> Metrics:
        """See `Evaluation.evaluate`; examples must be vectors.

        The metrics are loss, acc and err, and balanced_loss, balanced_acc and balanced_err, which
        weight each example by the inverse of its class frequency in the split. Validation metrics
        come from a classifier fitted to the training split; test metrics, from one fitted to the
        training and validation splits. Both classifiers use the hyperparameters that the search
        chose on these two splits.
        """
        if task != "classification":
            raise ValueError(
                f"a {self.label} only supports classification, but the task is {task}: choose "
                "another architecture@predictor, such as mlp_probe"
            )
        train, val, test = in_span(
            *(self._to_numpy(*splits[name]) for name in ("train", "val", "test"))
        )
        both = np.concatenate([train[0], val[0]]), np.concatenate([train[1], val[1]])
        chosen = self._search(*both, n_train=len(train[1]), seed=seed, n_jobs=n_jobs)
        settings = ", ".join(f"{name}={value}" for name, value in chosen.items())
        print(f"[predictor] {self.label}: {settings}")
        metrics: Metrics = {}
        for name, seen, unseen in (("val", train, val), ("test", both, test)):
            clf = self.make(seed).set_params(**chosen)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # detected below via n_iter_
                clf.fit(*seen)
            if np.max(clf.n_iter_) >= clf.max_iter:
                print(
                    f"[predictor] {self.label}: no convergence in {clf.max_iter} iterations; "
                    f"{name}/pred metrics may be worse than those of the best linear classifier"
                )
            metrics |= {f"{name}/pred/{k}": v for k, v in self._measure(clf, *unseen).items()}
        return metrics

    def _to_numpy(self, x: Tensor, y: Tensor) -> Split:
        if x.dim() != 2:
            raise ValueError(
                f"a {self.label} expects representations [N, D], not examples of shape "
                f"{list(x.shape[1:])}: choose another featurizer or architecture@predictor"
            )
        return x.double().numpy(), y.numpy()

    def _search(
        self, x: NDArray, y: NDArray, *, n_train: int, seed: int, n_jobs: int
    ) -> dict[str, object]:
        """Return the best candidate; x and y hold the training, then the validation examples."""
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
            # processes, not threads: liblinear's random state is global to the process
            parallel_config("loky"),
            warnings.catch_warnings(),
        ):
            # a candidate that does not converge is still ranked by its accuracy
            warnings.simplefilter("ignore", ConvergenceWarning)
            search.fit(x, y)
        return search.best_params_

    def _folds(self, y: NDArray, *, n_train: int, seed: int) -> list[tuple[NDArray, NDArray]]:
        """Return (row indices to fit to, row indices to rank candidates on) for each fold."""
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

    def _measure(self, clf: ClassifierMixin, x: NDArray, y: NDArray) -> Metrics:
        predicted, metrics = clf.predict(x), {}
        for prefix, weights in (("", None), ("balanced_", compute_sample_weight("balanced", y))):
            acc = float(accuracy_score(y, predicted, sample_weight=weights))
            loss = float(self.loss(clf, x, y, weights))
            metrics |= {f"{prefix}loss": loss, f"{prefix}acc": acc, f"{prefix}err": 1 - acc}
        return metrics


class LinearSVMEvaluation(LinearEvaluation):
    """scikit-learn's LinearSVC, the paper's choice: liblinear, squared hinge loss, one-vs-rest.

    The reported loss is the multi-class hinge loss (Crammer and Singer, 2001).
    """

    label = "linear SVM"

    def make(self, seed: int) -> LinearSVC:
        return LinearSVC(dual=False, random_state=seed)

    def loss(self, clf: LinearSVC, x: NDArray, y: NDArray, weights: NDArray | None = None) -> float:
        scores = clf.decision_function(x)
        return hinge_loss(y, scores, labels=clf.classes_, sample_weight=weights)


class LogisticEvaluation(LinearEvaluation):
    """scikit-learn's LogisticRegression: multinomial, fitted with L-BFGS, as in the CLIP paper
    (https://arxiv.org/abs/2103.00020). The loss is in nats.
    """

    label = "logistic regression"

    def make(self, seed: int) -> LogisticRegression:
        return LogisticRegression(max_iter=MAX_ITERATIONS, random_state=seed)

    def loss(
        self, clf: LogisticRegression, x: NDArray, y: NDArray, weights: NDArray | None = None
    ) -> float:
        probabilities = clf.predict_proba(x)
        return log_loss(y, probabilities, labels=clf.classes_, sample_weight=weights)


def in_span(train: Split, val: Split, test: Split) -> tuple[Split, Split, Split]:
    """Express examples as coordinates [N, R] in an orthonormal basis of the span of train and val.

    The weights of a linear classifier lie in that span, and its penalty does not depend on the
    basis, so the projection changes only the speed. For example, 1280-dimensional vectors decoded
    from 16 principal components and a mean are fitted as 17 numbers.
    """
    x = np.concatenate([train[0], val[0]])
    variances, axes = eigh(x.T @ x)  # ascending
    axes = axes[:, variances >= ROUNDING**2 * variances[-1]]
    return tuple((x @ axes, y) for x, y in (train, val, test))
