"""The studies of an experiment, in one SQLite file.

A trial is RUNNING, COMPLETE (all of its objectives are finite) or FAIL; a WAITING one is about to
repeat another. User attributes hold the rest:

- owner : the search process that runs it, see `utils.search.owner`.
- overrides : of its job, written just before it starts. A trial without them never started, and
  does not count.
- retry_of : number of the trial that it repeats, which then no longer counts.
- run : folder of the results of its last stage.
- seconds : duration of its job, since it last started.
- error : why it failed.
- is_result : whether repeating it would fail again, since its objective or loss was not finite.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import optuna
from filelock import FileLock
from optuna.trial import FrozenTrial, TrialState

from utils.configs.composing import ConfigError
from utils.search.owner import Owner
from utils.search.space import Space

FILE = "optuna.db"
WAIT_SECONDS = 60  # for another process that writes

optuna.logging.set_verbosity(optuna.logging.WARNING)  # without a line for each study and trial


def names(file: Path) -> list[str]:
    """The studies in a file, oldest first; none if there is no file."""
    return optuna.get_all_study_names(storage(file)) if file.is_file() else []


def searched(file: Path) -> list[str]:
    """The settings that the studies in a file draw; of a group, its place and the `.name` there."""
    trials = [trial for name in names(file) for trial in counted(load(file, name))]
    places = {key.split("@")[-1].lstrip("+"): None for trial in trials for key in trial.params}
    return [key for place in places for key in (place, f"{place}.name")]


def load(file: Path, name: str) -> optuna.Study:
    """A study of a file, for reading."""
    return optuna.load_study(study_name=name, storage=storage(file))


def objective_names(study: optuna.Study) -> list[str]:
    """Names of the metrics that a study optimises."""
    attributes = study.user_attrs
    if "definition" in attributes:
        return attributes["definition"]["monitor_return"]
    default = [f"objective {i}" for i in range(len(study.directions))]
    return attributes.get("objectives", default)  # as earlier versions had it


def counted(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count: they have started, and no later one repeats them."""
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


def definition(
    objectives: Sequence[str], directions: Sequence[str], space: Space
) -> dict[str, object]:
    """What all trials of a study have in common, by key; kept in the study's user attributes."""
    goals = {"monitor_return": list(objectives), "hypopt.direction": list(directions)}
    return goals | space.definition


def fits(study: optuna.Study, new: Mapping[str, object], folder: Path) -> bool:
    """Whether a study, of which searches in `folder` run trials, has this definition.

    Raises `ConfigError` if it has another one, and trials that are complete or running.
    """
    old = study.user_attrs.get("definition")
    if old is None:
        different = ["it was started by an earlier version of this project"]
    else:
        different = [
            f"{key} is {old.get(key, 'not set')} there, {new.get(key, 'not set')} here"
            for key in {**old, **new}
            if old.get(key) != new.get(key)
        ]
    owner = Owner(folder)
    if different and any(
        trial.state == TrialState.COMPLETE
        or (trial.state == TrialState.RUNNING and owner.is_alive(trial.user_attrs.get("owner")))
        for trial in study.get_trials(deepcopy=False)
    ):
        raise ConfigError(
            f"the study '{study.study_name}' cannot be continued: {'; '.join(different)}: "
            "hypopt.study_name=NAME starts another one (finished runs are reused)"
        )
    return not different


@functools.cache  # opening one takes a second
def storage(file: Path) -> optuna.storages.RDBStorage:
    """The studies of a file, created by one process at a time if there is none.

    Raises `ConfigError` for a file of another release of Optuna.
    """
    url = f"sqlite:///{file}"
    try:
        with lock(file):
            return optuna.storages.RDBStorage(
                url, engine_kwargs={"connect_args": {"timeout": WAIT_SECONDS}}
            )
    except RuntimeError as error:  # as Optuna raises it
        raise ConfigError(
            f"{file} was written by another release of Optuna than {optuna.__version__}; to "
            f"upgrade it: .venv/bin/optuna storage upgrade --storage {url}"
        ) from error


def lock(file: Path) -> FileLock:
    """Held while trials are taken, so that two searches never take the same one; reentrant."""
    return FileLock(file.with_suffix(".lock"), is_singleton=True)
