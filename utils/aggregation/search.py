"""Searches: figures and a table of each study of an experiment."""

from collections.abc import Sequence

import optuna
import pandas as pd
from optuna.trial import TrialState

from utils.aggregation.experiment import Experiment
from utils.composing import ConfigError
from utils.plots import search as plots
from utils.search import database
from utils.search.importance import importances

STATES = {
    TrialState.COMPLETE: plots.COMPLETE,
    TrialState.FAIL: plots.FAILED,
    TrialState.RUNNING: plots.UNDER_WAY,
}


def plot_optuna_hypopt(
    experiment: Experiment,
    studies: Sequence[str] | None = None,
    is_log_y: bool = False,
) -> None:
    """Draw how each search went: `optuna_<study>_{history,importance,pareto}`, and write the table
    of its trials, `optuna_<study>.csv`.

    - history: values by trial, and the best so far; trials that failed are marked.
    - importance: the share of each objective's variance that each setting explains by itself; see
      `utils.search.importance`. Not drawn for a handful of trials.
    - pareto: of two objectives, all trials and those that no other one beats.

    Columns of the table: number, state, `is_best`, the objectives, the settings that were drawn;
    then `seconds` of the job, `run` (folder of its results) and `error`. Trials that were repeated
    are left out. An experiment without a search is no error: it says so.

    Parameters
    ----------
    studies : names; None: all that there are.
    is_log_y : logarithmic axes of values.
    """
    option, file = "aggregate.plot_optuna_hypopt", experiment.folder / database.FILE
    there_are = database.names(file)
    if not there_are:
        print(f"No search has begun: there is no study in {file}")
    studies = None if studies is None else list(map(str, studies))  # which may look like numbers
    if unknown := [name for name in studies or () if name not in there_are]:
        raise ConfigError(f"{option}.studies: there is no {unknown}; there are {there_are}")
    for name in there_are if studies is None else studies:
        _draw(experiment, database.load(file, name), is_log_y)


def _draw(experiment: Experiment, study: optuna.Study, is_log_y: bool) -> None:
    stem = f"optuna_{study.study_name.replace('/', '_')}"
    objectives = database.objectives_of(study)
    directions = [direction.name.lower() for direction in study.directions]
    table = trials_table(study)
    experiment.save_numbers(table, stem)
    print(f"Table: {experiment.folder / stem}.csv, {len(table)} trials")
    if not (table["state"] == plots.COMPLETE).any():
        print(f"No trial of {study.study_name} is complete: there is nothing to draw")
        return
    history = plots.history_plot(
        table, dict(zip(objectives, directions, strict=True)), is_log_y=is_log_y
    )
    experiment.save_figure(history, f"{stem}_history")
    shares = _shares(experiment, study)
    if len(shares):
        experiment.save_figure(plots.importance_plot(shares), f"{stem}_importance")
    if len(objectives) == 2:
        front = plots.front_plot(table, objectives, is_log_y=is_log_y)
        experiment.save_figure(front, f"{stem}_pareto")


def trials_table(study: optuna.Study) -> pd.DataFrame:
    """The trials that count, one row each; see `plot_optuna_hypopt`."""
    objectives = database.objectives_of(study)
    best = {trial.number for trial in database.best_trials(study)}
    rows = []
    for trial in database.counted(study.get_trials(deepcopy=False)):
        values = trial.values if trial.state == TrialState.COMPLETE else [None] * len(objectives)
        about = {key: trial.user_attrs.get(key) for key in ("seconds", "run", "error")}
        rows.append(
            {"number": trial.number, "state": STATES[trial.state], "is_best": trial.number in best}
            | dict(zip(objectives, values, strict=True))
            | trial.params
            | about
        )
    columns = ["number", "state", "is_best", *objectives, *_settings(study)]
    table = pd.DataFrame(rows, columns=[*columns, "seconds", "run", "error"])
    return table.astype(dict.fromkeys(objectives, float))


def _settings(study: optuna.Study) -> list[str]:
    """All that trials drew, in the order of the first one that drew it."""
    trials = study.get_trials(deepcopy=False)
    return list(dict.fromkeys(key for trial in trials for key in trial.params))


def _shares(experiment: Experiment, study: optuna.Study) -> pd.DataFrame:
    """Importance of each setting (rows) for each objective (columns) whose values vary."""
    trials = study.get_trials(deepcopy=False)
    found = {
        objective: shares
        for i, objective in enumerate(database.objectives_of(study))
        if (shares := importances(trials, i))
    }
    frame = pd.DataFrame(found)
    return frame.rename(index={key: experiment.pretty(_short(key)) for key in frame.index})


def _short(key: str) -> str:
    """ "optimizer_pred.kwargs.lr" -> "optimizer_pred.lr"; of a group, the place it stands at."""
    return key.split("@")[-1].replace(".kwargs.", ".")
