"""The studies of an experiment, in one SQLite file, and the states of their trials.

A trial is RUNNING, COMPLETE (all of its objectives are finite), FAIL, or WAITING to repeat another.
Its user attributes are:

- owner : search process that runs it, see `new_owner`.
- overrides : command line of its job, written just before it starts. A trial without it has never
  started and does not count.
- retry_of : number of the trial that it repeats, which then no longer counts.
- run : results folder of its last stage.
- seconds : duration of its job since its last start.
- error : why it failed.
- is_result : whether it would fail again, because its objective or loss was not finite.
"""

import functools
import os
import platform
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import optuna
from filelock import FileLock
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import URL

from utils.configs.checks import ConfigError
from utils.runs.files import is_locked
from utils.search.space import Space

FILE = "optuna.db"
WAIT_SECONDS = 60  # for another process that writes

optuna.logging.set_verbosity(optuna.logging.WARNING)  # no line per study and trial


def names(file: Path) -> list[str]:
    """Names of the studies in a file, oldest first; empty if there is no file."""
    return optuna.get_all_study_names(storage(file)) if file.is_file() else []


def load(file: Path, name: str) -> optuna.Study:
    """A study of a file, for reading."""
    return optuna.load_study(study_name=name, storage=storage(file))


def searched(file: Path) -> list[str]:
    """Settings that the studies of a file draw; of an option, its group and the group's `.name`."""
    trials = [trial for name in names(file) for trial in counted(load(file, name))]
    places = {key.split("@")[-1].lstrip("+"): None for trial in trials for key in trial.params}
    return [key for place in places for key in (place, f"{place}.name")]


def objective_names(study: optuna.Study) -> list[str]:
    """Names of the metrics that a study optimises."""
    default = [f"objective {i}" for i in range(len(study.directions))]  # of other programs
    return study.user_attrs.get("definition", {}).get("monitor_return", default)


def counted(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count: they have started, and no later trial repeats them."""
    started = [t for t in study.get_trials(deepcopy=False) if has_started(t)]
    repeated = {trial.user_attrs.get("retry_of") for trial in started}
    return [trial for trial in started if trial.number not in repeated]


def has_started(trial: FrozenTrial) -> bool:
    return "overrides" in trial.user_attrs


def best_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The best trial, or the Pareto front of several objectives; empty if no trial is complete."""
    if len(study.directions) > 1:
        return study.best_trials
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [study.best_trial] if complete else []


# --- what trials have in common


def definition(
    objectives: Sequence[str], directions: Sequence[str], space: Space
) -> dict[str, object]:
    """Settings that all trials of a study share, by key; kept in the study's user attributes."""
    goals = {"monitor_return": list(objectives), "hypopt.direction": list(directions)}
    return goals | space.definition


def fits(study: optuna.Study, new: Mapping[str, object], file: Path) -> bool:
    """Whether a study has this definition.

    Raises `ConfigError` if it has another one, and trials that are complete or running.
    """
    old = study.user_attrs.get("definition", {})
    different = [
        f"{key} is {old.get(key, 'not set')} there, {new.get(key, 'not set')} here"
        for key in {**old, **new}
        if old.get(key) != new.get(key)
    ]
    if different and any(
        trial.state == TrialState.COMPLETE
        or (trial.state == TrialState.RUNNING and is_alive(file, trial))
        for trial in study.get_trials(deepcopy=False)
    ):
        raise ConfigError(
            f"the study '{study.study_name}' cannot be continued: {'; '.join(different)}: "
            "hypopt.study_name=NAME starts another one (finished runs are reused)"
        )
    return not different


# --- processes


def new_owner() -> str:
    """Id of this search process, for its trials.

    It holds the lock `owner_lock`, which the operating system frees if the process is killed.
    Optuna's heartbeat works only in `Study.optimize`, which runs trials in threads.
    """
    return f"{platform.node()}_{os.getpid()}_{uuid.uuid4().hex[:8]}"


def owner_lock(file: Path, owner: str | None) -> Path:
    return file.with_name(f"optuna_{owner}.lock")


def is_alive(file: Path, trial: FrozenTrial) -> bool:
    """Whether the search process of a running trial is alive."""
    return is_locked(owner_lock(file, trial.user_attrs.get("owner")))


@functools.cache  # opening one takes a second
def storage(file: Path) -> optuna.storages.RDBStorage:
    """Storage of a file; if there is none, one process at a time creates it.

    Raises `ConfigError` for a file of another release of Optuna.
    """
    url = URL.create("sqlite", database=str(file)).render_as_string()  # escapes "?" and the like
    try:
        with lock(file):
            return optuna.storages.RDBStorage(
                url, engine_kwargs={"connect_args": {"timeout": WAIT_SECONDS}}
            )
    except RuntimeError as error:  # Optuna's
        raise ConfigError(
            f"{file} was written by another release of Optuna than {optuna.__version__}; to "
            f"upgrade it: .venv/bin/optuna storage upgrade --storage '{url}'"
        ) from error


def lock(file: Path) -> FileLock:
    """Reentrant lock, held while trials are taken: two searches never take the same one."""
    return FileLock(file.with_suffix(".lock"), is_singleton=True)
