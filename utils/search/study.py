"""The studies of an experiment, in one SQLite file, and the states of their trials.

A trial is RUNNING, COMPLETE (all its objectives are finite), FAIL, or WAITING to repeat another
trial. Its user attributes are:

- owner : search process that took it; see `new_owner`.
- overrides : command line of its job, written just before the job starts. A trial without this
  attribute never started and does not count.
- retry_of : number of the trial that it repeats, which then no longer counts.
- run : results folder of its last stage.
- seconds : run time of its job, counted from the job's last start.
- error : why it failed.
- is_result : True if its failure is final (objective or loss not finite), so it is not repeated.
"""

import functools
import os
import platform
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import optuna
from filelock import FileLock
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import URL

from utils.configs.checks import ConfigError
from utils.runs.files import is_locked
from utils.search.space import Space

FILE = "optuna.db"
WAIT_SECONDS = 60  # for a lock held by another writer

optuna.logging.set_verbosity(optuna.logging.WARNING)  # suppresses one log line per study and trial


def names(file: Path) -> list[str]:
    """Names of the studies in a file, oldest first; empty if there is no file."""
    return optuna.get_all_study_names(storage(file)) if file.is_file() else []


def load(file: Path, name: str) -> optuna.Study:
    """Load an existing study from a file."""
    return optuna.load_study(study_name=name, storage=storage(file))


def searched(file: Path) -> list[str]:
    """Settings sampled by the studies in a file, as `<key>` and (for groups) as `<key>.name`."""
    trials = [trial for name in names(file) for trial in counted(load(file, name))]
    places = {key.split("@")[-1].lstrip("+"): None for trial in trials for key in trial.params}
    return [key for place in places for key in (place, f"{place}.name")]


def objective_names(study: optuna.Study) -> list[str]:
    """Names of the metrics that a study optimises."""
    of_others = [f"objective {i}" for i in range(len(study.directions))]  # other programs' studies
    return study.user_attrs.get("definition", {}).get("monitor_return", of_others)


def counted(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count: those that have started and that no later trial repeats."""
    started = [t for t in study.get_trials(deepcopy=False) if has_started(t)]
    repeated = {trial.user_attrs.get("retry_of") for trial in started}
    return [trial for trial in started if trial.number not in repeated]


def has_started(trial: FrozenTrial) -> bool:
    return "overrides" in trial.user_attrs


def best_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The best trial, or the Pareto front of several objectives; empty if no trial is complete."""
    return study.best_trials if len(study.directions) > 1 else study.best_trials[:1]


def definition(
    objectives: Sequence[str], directions: Sequence[str], space: Space
) -> dict[str, object]:
    """Settings that all trials of a study share, stored as a user attribute of the study."""
    goals = {"monitor_return": list(objectives), "hypopt.direction": list(directions)}
    return goals | space.definition


def fits(study: optuna.Study, new: Mapping[str, object], file: Path) -> bool:
    """Whether a study has this definition.

    Raises `ConfigError` if the definition differs and the study has complete or running trials.
    """
    old = study.user_attrs.get("definition", {})
    different = [
        f"{key} is {old.get(key, 'not set')} in the study, but {new.get(key, 'not set')} here"
        for key in {**old, **new}
        if old.get(key) != new.get(key)
    ]
    if different and any(
        trial.state == TrialState.COMPLETE or is_alive(file, trial)
        for trial in study.get_trials(deepcopy=False)
    ):
        raise ConfigError(
            f"the study '{study.study_name}' cannot be continued: {'; '.join(different)}. "
            "Start a new one with hypopt.study_name=NAME (finished runs are reused)"
        )
    return not different


@functools.cache  # opening a storage takes a second
def storage(file: Path) -> optuna.storages.RDBStorage:
    """Optuna's storage in a file, which is created if missing.

    Raises `ConfigError` if the file was written by an incompatible release of Optuna.
    """
    url = URL.create("sqlite", database=str(file)).render_as_string()  # escapes special characters
    try:
        with FileLock(file.with_suffix(".lock")):
            return optuna.storages.RDBStorage(
                url, engine_kwargs={"connect_args": {"timeout": WAIT_SECONDS}}
            )
    except RuntimeError as error:  # raised by Optuna
        raise ConfigError(
            f"{file} was written by a release of Optuna other than {optuna.__version__}; to "
            f"upgrade it, run: .venv/bin/optuna storage upgrade --storage '{url}'"
        ) from error


def study_lock(file: Path, name: str) -> FileLock:
    """Lock of a study, held while taking trials, so that no two searches take the same trial."""
    return FileLock(file.with_name(f".optuna_{quote(name, safe='')}.lock"))


def new_owner() -> str:
    """Return a unique name for this search process.

    The process holds `owner_lock`, which is released even if the process is killed. Optuna's own
    heartbeat only works in `Study.optimize`, which runs trials in threads.
    """
    return f"{platform.node()}_{os.getpid()}_{uuid.uuid4().hex[:8]}"


def owner_lock(file: Path, owner: str) -> FileLock:
    return FileLock(file.with_name(f".optuna_{owner}.lock"))


def is_alive(file: Path, trial: FrozenTrial) -> bool:
    """Whether a trial is running in a search process that is alive."""
    is_running = trial.state == TrialState.RUNNING and "owner" in trial.user_attrs
    return is_running and is_locked(Path(owner_lock(file, trial.user_attrs["owner"]).lock_file))
