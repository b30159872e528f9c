"""Linear evaluation: a support vector machine on decoded representations, for classification.

The protocol of the paper for its CLIP compressor: a seeded random search over the penalty and the
class weights of scikit-learn's LinearSVC (liblinear, squared hinge loss, one classifier per class).
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from joblib import parallel_config
from scipy.linalg import eigh
from scipy.stats import loguniform
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score, balanced_accuracy_score, hinge_loss
from sklearn.model_selection import RandomizedSearchCV, StratifiedKFold, train_test_split
from sklearn.svm import LinearSVC
from torch import Tensor

SPACE = {"C": loguniform(1e-3, 1), "class_weight": [None, "balanced"]}
NORM = 10.0  # about that of CLIP's image features, which the range of penalties was chosen for
# Singular values, relative to the largest, that are no more than the rounding of float32.
ROUNDING = 1e-6

Split = tuple[np.ndarray, np.ndarray]  # representations float64 [N, D], classes int64 [N]


@dataclass(frozen=True)
class LinearEvaluation:
    """Chooses a linear SVM, fits it, and measures its accuracy.

    Dimensions keep their scales, as in the paper, but for one factor that brings all
    representations to the norm of CLIP's: penalties then mean the same for representations of any
    unit, and the solver converges for all of them.

    The search compares its draws by the accuracy in cross-validation over the training examples, so
    that nothing is chosen on those of validation. Where that would take hours (beyond
    `max_cv_examples` or `max_cv_labels`), and where a class has fewer examples than there are
    folds, it compares them on the validation split, after fits to at most `max_search_examples`
    training examples, drawn from each class alike: the metrics of validation are the best draw's.

    Parameters
    ----------
    n_draws : settings that are tried.
    n_folds : of the cross-validation.
    max_cv_examples : training examples up to which there is cross-validation.
    max_cv_labels : training examples times classes up to which there is cross-validation, for
        liblinear fits one class after the other.
    max_search_examples : see above; the fits that are measured always see all examples.
    """

    n_draws: int = 16
    n_folds: int = 5
    max_cv_examples: int = 50_000
    max_cv_labels: int = 1_000_000
    max_search_examples: int = 20_000

    def evaluate(
        self,
        splits: Mapping[str, tuple[Tensor, Tensor]],
        *,
        task: str,
        seed: int,
        n_jobs: int = 1,
    ) -> dict[str, float]:
        """Metrics `<split>/pred/<name>` of validation and test; a function of data and seed only.

        acc, err; balanced_acc: mean over classes of the part of their examples that is recognised;
        loss: multi-class hinge loss (Crammer and Singer 2001). Those of validation are of a machine
        that was fitted to the training split alone, those of test of one that was fitted to both.

        Parameters
        ----------
        splits : (x [N, D], y int64 [N]) for each of "train", "val" and "test".
        task : of the data set, which must be "classification".
        seed : of the draws, the folds and the solver.
        n_jobs : processes that search at the same time.

        Raises
        ------
        ValueError
            If there are no classes to predict, or if examples are no vectors.
        """
        if task != "classification":
            raise ValueError(
                f"architecture@predictor=linear_svc is for classification, but the task is {task}: "
                "choose another predictor, such as mlp_probe"
            )
        train, val, test = _condition(
            *(_to_numpy(*splits[name]) for name in ("train", "val", "test"))
        )
        both = np.concatenate([train[0], val[0]]), np.concatenate([train[1], val[1]])
        chosen = self._search(*both, n_train=len(train[1]), seed=seed, n_jobs=n_jobs)
        print(f"[predictor] linear SVM: {chosen}")
        metrics: dict[str, float] = {}
        for name, seen, unseen in (("val", train, val), ("test", both, test)):
            machine = _fit(_machine(seed).set_params(**chosen), *seen)
            if machine.n_iter_ >= machine.max_iter:
                print(
                    f"[predictor] linear SVM: no convergence in {machine.max_iter} iterations; "
                    f"{name}/pred metrics may be below what a linear classifier can do"
                )
            metrics |= {f"{name}/pred/{key}": v for key, v in _measure(machine, *unseen).items()}
        return metrics

    def _search(
        self, x: np.ndarray, y: np.ndarray, *, n_train: int, seed: int, n_jobs: int
    ) -> dict[str, object]:
        """The best of the drawn settings; x and y hold training examples, then validation ones."""
        search = RandomizedSearchCV(
            _machine(seed),
            SPACE,
            n_iter=self.n_draws,
            scoring="accuracy",
            cv=self._folds(y, n_train=n_train, seed=seed),
            refit=False,
            n_jobs=n_jobs,
            random_state=seed,
            error_score="raise",
        )
        with (
            # of processes, for the solver's random numbers are those of a process
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
        """Rows to fit to and rows to compare draws on: folds of the training examples, or the
        validation split."""
        rows, held_out = np.arange(n_train), np.arange(n_train, len(y))
        counts = np.unique(y[:n_train], return_counts=True)[1]
        if (
            n_train <= self.max_cv_examples
            and n_train * len(counts) <= self.max_cv_labels
            and counts.min() >= self.n_folds
        ):
            folds = StratifiedKFold(self.n_folds, shuffle=True, random_state=seed)
            return list(folds.split(rows, y[:n_train]))
        if n_train > self.max_search_examples:
            rows, _ = train_test_split(
                rows,
                train_size=self.max_search_examples,
                stratify=y[:n_train],
                random_state=seed,
            )
        return [(rows, held_out)]


def _machine(seed: int) -> LinearSVC:
    """A machine solved for weights, or for examples where those are fewer."""
    return LinearSVC(dual="auto", random_state=seed)


def _fit(machine: LinearSVC, x: np.ndarray, y: np.ndarray) -> LinearSVC:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # n_iter_ tells
        return machine.fit(x, y)


def _condition(train: Split, val: Split, test: Split) -> tuple[Split, Split, Split]:
    """The same examples at one scale, by axes [D, R] of the span of those that are fitted to.

    Weights of a linear machine lie in that span, and its penalty does not depend on the axes, so
    that these change nothing but the time: principal components that were decoded to vectors of
    1280 dimensions are solved for as the 16 numbers that they are.
    """
    x = np.concatenate([train[0], val[0]])
    variances, axes = eigh(x.T @ x)  # the largest come last
    axes = axes[:, variances >= ROUNDING**2 * variances[-1]]
    norm = np.sqrt(np.square(train[0]).sum(1).mean())
    axes *= NORM / max(norm, np.finfo(np.float32).tiny)
    return tuple((x @ axes, y) for x, y in (train, val, test))


def _to_numpy(x: Tensor, y: Tensor) -> Split:
    if x.dim() != 2:
        raise ValueError(
            "architecture@predictor=linear_svc works on representations [N, D], not on examples "
            f"{list(x.shape[1:])}: choose another featurizer or predictor"
        )
    return x.double().numpy(), y.numpy()


def _measure(machine: LinearSVC, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    predicted = machine.predict(x)
    acc = float(accuracy_score(y, predicted))
    return {
        "acc": acc,
        "err": 1 - acc,
        "balanced_acc": float(balanced_accuracy_score(y, predicted)),
        "loss": float(hinge_loss(y, machine.decision_function(x), labels=machine.classes_)),
    }
