"""The paper's linear evaluation: a support vector machine."""

import numpy as np
from sklearn.metrics import hinge_loss
from sklearn.svm import LinearSVC

from utils.evaluation.linear import SearchedClassifier


class LinearEvaluation(SearchedClassifier):  # the name is part of the identity of runs
    """scikit-learn's LinearSVC: liblinear, squared hinge loss, one classifier per class.

    Its loss is measured as the multi-class hinge loss (Crammer and Singer 2001).
    """

    label = "linear SVM"

    def make(self, seed: int) -> LinearSVC:
        return LinearSVC(dual=False, random_state=seed)

    def loss(
        self, machine: LinearSVC, x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None
    ) -> float:
        scores = machine.decision_function(x)
        return hinge_loss(y, scores, labels=machine.classes_, sample_weight=weights)
