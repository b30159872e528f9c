"""How much each setting of a search matters."""

from collections.abc import Sequence

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState
from sklearn.ensemble import RandomForestRegressor

from utils.search.space import is_log

MIN_TRIALS = 10  # of which fewer say nothing


def importances(trials: Sequence[FrozenTrial], objective: int = 0) -> dict[str, float]:
    """The share of an objective's variance that each setting explains; the shares sum to 1.

    In the splits of a random forest that predicts the objective from the settings ("mean decrease
    impurity", Breiman 2001), in the scale in which these are drawn: of an interval with the tag
    `log`, decades count alike. (fANOVA of the installed Optuna fails with current scikit-learn.)

    Parameters
    ----------
    trials : of a study; those that are not complete are left out.
    objective : its position.

    Returns
    -------
    dict
        Largest first; empty if there are fewer than `MIN_TRIALS`, or if their values are all equal.
        Settings that never varied, or that some trial lacks, are left out.
    """
    trials = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    values = [trial.values[objective] for trial in trials]
    if len(trials) < MIN_TRIALS or np.ptp(values) == 0:
        return {}
    keys = sorted(set.intersection(*(set(trial.params) for trial in trials)))
    keys = [key for key in keys if len({trial.params[key] for trial in trials}) > 1]
    if not keys:
        return {}
    columns = [_columns(trials, key) for key in keys]
    forest = RandomForestRegressor(n_estimators=100, random_state=0)
    forest.fit(np.concatenate(columns, axis=1), values)
    ends = np.cumsum([column.shape[1] for column in columns])[:-1]
    shares = [part.sum() for part in np.split(forest.feature_importances_, ends)]
    found = {key: float(share) for key, share in zip(keys, shares, strict=True)}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _columns(trials: Sequence[FrozenTrial], key: str) -> np.ndarray:
    """A setting as input of the forest [trials, columns]: a number, or one column per choice."""
    values = np.array([trial.params[key] for trial in trials], dtype=object)
    distribution = trials[0].distributions[key]
    if isinstance(distribution, CategoricalDistribution):
        choices = np.array(distribution.choices, dtype=object)
        return (values[:, None] == choices).astype(float)
    numbers = values.astype(float)
    return (np.log10(numbers) if is_log(distribution) else numbers)[:, None]
