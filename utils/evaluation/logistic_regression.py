"""Linear evaluation by logistic regression, as of CLIP (https://arxiv.org/abs/2103.00020)."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from utils.evaluation.linear import SearchedClassifier

MAX_ITERATIONS = 1000


class LogisticEvaluation(SearchedClassifier):
    """scikit-learn's LogisticRegression: multinomial, by L-BFGS. The loss is in nats."""

    label = "logistic regression"

    def make(self, seed: int) -> LogisticRegression:
        return LogisticRegression(max_iter=MAX_ITERATIONS, random_state=seed)

    def loss(
        self,
        machine: LogisticRegression,
        x: np.ndarray,
        y: np.ndarray,
        weights: np.ndarray | None = None,
    ) -> float:
        chances = machine.predict_proba(x)
        return log_loss(y, chances, labels=machine.classes_, sample_weight=weights)
