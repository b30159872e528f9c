"""Searches: figures and a table of each study of an experiment."""

from collections.abc import Sequence

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState, create_trial

from utils.aggregation.experiment import Experiment
from utils.configs.composing import ConfigError
from utils.plots import search as plots
from utils.search import study as studies_of
from utils.search.study import best_trials, counted, objective_names

STATES = {
    TrialState.COMPLETE: plots.COMPLETE,
    TrialState.FAIL: plots.FAILED,
    TrialState.RUNNING: plots.RUNNING,
}
MIN_TRIALS = 10  # fewer say nothing about importance


def plot_optuna_hypopt(
    experiment: Experiment,
    studies: Sequence[str] | None = None,
    is_log_y: bool = False,
) -> None:
    """Draw each search: `optuna_<study>_{history,importance,pareto}`, and write the table of its
    trials, `optuna_<study>.csv`.

    - history: values by trial, and the best so far; failed trials are marked.
    - importance: see `importances`; drawn from 10 complete trials on.
    - pareto: of two objectives, all trials and their Pareto front.

    Columns of the table: number, state, `is_best`, the objectives, the drawn settings; then
    `seconds` of the job, `run` (folder of its results) and `error`. Trials that were repeated are
    left out. An experiment without a search is no error: it says so.

    Parameters
    ----------
    studies : names; None: all.
    is_log_y : logarithmic axes of values.
    """
    file = experiment.folder / studies_of.FILE
    found = studies_of.names(file)
    if not found:
        print(f"No search yet: there is no study in {file}")
    wanted = found if studies is None else list(map(str, studies))  # which may look like numbers
    if unknown := [name for name in wanted if name not in found]:
        raise ConfigError(f"aggregate.plot_optuna_hypopt.studies: no {unknown}; there are {found}")
    for name in wanted:
        _draw(experiment, studies_of.load(file, name), is_log_y)


def _draw(experiment: Experiment, study: optuna.Study, is_log_y: bool) -> None:
    stem = f"optuna_{study.study_name.replace('/', '_')}"
    objectives = objective_names(study)
    directions = [direction.name.lower() for direction in study.directions]
    table = trials_table(study)
    experiment.save_numbers(table, stem)
    print(f"Table: {experiment.folder / stem}.csv, {len(table)} trials")
    if not (table["state"] == plots.COMPLETE).any():
        print(f"No trial of {study.study_name} is complete: nothing to draw")
        return
    history = plots.history_plot(
        table, dict(zip(objectives, directions, strict=True)), is_log_y=is_log_y
    )
    experiment.save_figure(history, f"{stem}_history")
    found = {name: importances(study, i) for i, name in enumerate(objectives)}
    shares = pd.DataFrame({name: shares for name, shares in found.items() if shares})
    if len(shares):
        shares = shares.rename(index={key: experiment.pretty(_short(key)) for key in shares.index})
        experiment.save_figure(plots.importance_plot(shares), f"{stem}_importance")
    if len(objectives) == 2:
        front = plots.front_plot(table, objectives, is_log_y=is_log_y)
        experiment.save_figure(front, f"{stem}_pareto")


def trials_table(study: optuna.Study) -> pd.DataFrame:
    """The trials that count, one row each; see `plot_optuna_hypopt`."""
    objectives, trials = objective_names(study), counted(study)
    best = {trial.number for trial in best_trials(study)}
    rows = []
    for trial in trials:
        values = trial.values if trial.state == TrialState.COMPLETE else [None] * len(objectives)
        about = {key: trial.user_attrs.get(key) for key in ("seconds", "run", "error")}
        rows.append(
            {"number": trial.number, "state": STATES[trial.state], "is_best": trial.number in best}
            | dict(zip(objectives, values, strict=True))
            | trial.params
            | about
        )
    drawn = dict.fromkeys(key for trial in trials for key in trial.params)
    columns = ["number", "state", "is_best", *objectives, *drawn, "seconds", "run", "error"]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(objectives, float))


def importances(study: optuna.Study, objective: int = 0) -> dict[str, float]:
    """Share of an objective's variance that each drawn setting explains by itself (fANOVA,
    Hutter et al. 2014, http://proceedings.mlr.press/v32/hutter14.html); shares sum to 1.

    Largest first; empty if fewer than `MIN_TRIALS` are complete, or if their values are all equal.

    Parameters
    ----------
    objective : its index.
    """
    trials = [trial for trial in counted(study) if trial.state == TrialState.COMPLETE]
    values = [trial.values[objective] for trial in trials]
    if len(trials) < MIN_TRIALS or np.ptp(values) == 0:
        return {}
    one_space = optuna.create_study()
    one_space.add_trials(
        create_trial(params=trial.params, distributions=space, value=value)
        for space in [_joint_space(trials)]
        for trial, value in zip(trials, values, strict=True)
    )
    shares = get_param_importances(one_space, evaluator=FanovaImportanceEvaluator(seed=0))
    return {key: float(share) for key, share in shares.items()}


def _joint_space(trials: Sequence[FrozenTrial]) -> dict[str, BaseDistribution]:
    """The space of trials, with intervals that hold all of theirs, whose ends may have moved."""
    space = dict(trials[0].distributions)
    for trial in trials:
        for key, other in trial.distributions.items():
            if not isinstance(other, CategoricalDistribution):
                low, high = min(space[key].low, other.low), max(space[key].high, other.high)
                space[key] = type(other)(low, high, log=other.log)
    return space


def _short(key: str) -> str:
    """ "optimizer_pred.kwargs.lr" -> "optimizer_pred.lr"; of a group, where it is put."""
    return key.split("@")[-1].replace(".kwargs.", ".")
