"""Figures and tables of searches."""

import math
from collections.abc import Sequence

import numpy as np
import optuna
import pytest
from helpers.searches import Params, conflict, load, run, square
from optuna.trial import TrialState

from utils.aggregation.experiment import Experiment
from utils.aggregation.search_figures import importances, plot_optuna_hypopt, trials_table
from utils.configs.checks import ConfigError
from utils.search import study as studies
from utils.search.space import Space


def quadratic_study(n: int, ends: Sequence[str]) -> optuna.Study:
    """A study whose values depend on the exponent of `log`, weakly on `x`, and on nothing else."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for end in ends:
        log = "log=tag(log, interval(1e-8, 1))"
        space = Space.of([f"x=interval(-1.0, {end})", log, "c=choice(a, b)", "same=choice(1)"])
        for _ in range(n // len(ends)):
            trial = study.ask(space.distributions)
            trial.set_user_attr("overrides", [])
            value = (np.log10(trial.params["log"]) + 3) ** 2 + 0.1 * trial.params["x"]
            study.tell(trial, value)
    study.tell(study.ask(space.distributions), state=TrialState.FAIL)
    return study


def test_importance_is_the_explained_share_of_the_variance(tmp_path):
    for ends, moved in ((["1"], set()), (["1", "3"], {"x"})):  # a fixed space, a moved interval
        shares = importances(quadratic_study(60, ends))
        assert set(shares) == {"log", "x", "c", "same"} - moved and next(iter(shares)) == "log"
        assert shares["log"] > 0.8 and shares["same"] == 0
        assert sum(shares.values()) <= 1
    assert importances(quadratic_study(9, ["1"])) == {}  # too few trials
    run(tmp_path, lambda _: 1.0, n_trials=12)
    assert importances(load(tmp_path)) == {}  # all values are equal


def test_importance_leaves_out_interactions():
    """For x + 3 x y on [-1, 1]^2, x alone explains a quarter of the variance, and y nothing."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    space = Space.of([f"{name}=interval(-1.0, 1.0)" for name in "xy"])
    for _ in range(100):
        trial = study.ask(space.distributions)
        x, y = trial.params["x"], trial.params["y"]
        study.tell(trial, x + 3 * x * y)
    assert importances(study) == pytest.approx({"x": 0.25, "y": 0.0}, abs=0.1)


def test_figures_and_tables_of_all_studies(tmp_path):
    def sometimes(settings: Params) -> tuple[float, float]:
        if settings["x"] > 0.7:
            raise ValueError("no memory left")
        return conflict(settings)

    run(tmp_path, square, 10, name="one")
    for _ in range(2):  # the second call repeats the trials that failed
        run(tmp_path, sometimes, 14, name="two", objectives=("a", "b"))
    plot_optuna_hypopt(Experiment(tmp_path))
    drawn = {path.name for path in tmp_path.glob("optuna_*.png")}
    kinds = ("one_history", "one_importance", "two_history", "two_importance", "two_pareto")
    assert drawn == {f"optuna_{kind}.png" for kind in kinds}
    with pytest.raises(ConfigError, match="studies.*three.*one.*two"):
        plot_optuna_hypopt(Experiment(tmp_path), studies=["three"])

    table, study = trials_table(load(tmp_path, "two")), load(tmp_path, "two")
    assert len(table) == 14 < len(study.trials)
    failed = table["state"] == "failed"
    assert failed.any() and (table.loc[failed, "error"] == "ValueError: no memory left").all()
    assert table.loc[failed, ["a", "b"]].isna().all(axis=None)
    best = {trial.number for trial in studies.best_trials(study)}
    assert set(table.loc[table["is_best"], "number"]) == best
    assert (table.loc[~failed, "a"] == table.loc[~failed, "x"] ** 2).all()


def test_nothing_is_drawn_without_complete_trials(tmp_path, capsys):
    plot_optuna_hypopt(Experiment(tmp_path))
    assert capsys.readouterr().out.count("\n") == 1 and not list(tmp_path.iterdir())
    run(tmp_path, lambda _: math.nan, n_trials=1, name="failed")
    plot_optuna_hypopt(Experiment(tmp_path), studies=["failed"])
    assert [path.name for path in tmp_path.glob("optuna_*.*")] == ["optuna_failed.csv"]
