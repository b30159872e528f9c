"""The studies of an experiment, in one sqlite data base; what can be read from them.

A trial has one of Optuna's states: RUNNING, COMPLETE (all of its objectives are finite) or FAIL.
What Optuna does not know of a trial stands in its user attributes:

- owner : the search that runs it, see `utils.search.owner`.
- overrides : of its job.
- run : folder of the results of its last stage.
- seconds : that the job took since it last began.
- error : why it failed.
- is_result : of a failed one: that it would fail again, since an objective or the loss of its
  training was not finite.
- retry_of : number of the failed trial that it repeats, which then no longer counts.
- is_void : it never began, and does not count.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

import optuna
from filelock import FileLock
from optuna.trial import FrozenTrial, TrialState

from utils.composing import ConfigError
from utils.identity import is_how
from utils.search.space import Space, in_words, is_comparable

FILE = "optuna.db"
WAIT_SECONDS = 60  # for another process that writes


def names(file: Path) -> list[str]:
    """The studies of a data base, in the order in which they began; none if there is no file."""
    if not file.is_file():
        return []
    summaries = optuna.get_all_study_summaries(storage(file))
    return [summary.study_name for summary in sorted(summaries, key=lambda s: s._study_id)]


def load(file: Path, name: str) -> optuna.Study:
    """A study of a data base, for reading."""
    return optuna.load_study(study_name=name, storage=storage(file))


def objectives_of(study: optuna.Study) -> list[str]:
    """Names of what a study makes small or large."""
    default = [f"objective {i}" for i in range(len(study.directions))]
    return study.user_attrs.get("objectives", default)


def counted(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that count: those that are not repeated by a later one, and that began."""
    old = repeated(trials)
    return [
        trial
        for trial in trials
        if trial.number not in old
        and "is_void" not in trial.user_attrs
        and trial.state != TrialState.WAITING
    ]


def best_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The best trial, or of several objectives those that no other trial beats; none if none is
    complete."""
    if not any(trial.state == TrialState.COMPLETE for trial in study.get_trials(deepcopy=False)):
        return []
    return [study.best_trial] if len(study.directions) == 1 else study.best_trials


def check_same(
    study: optuna.Study, objectives: Sequence[str], directions: Sequence[str], space: Space
) -> None:
    """Raise `ConfigError` if new trials could not be compared with those of the study."""
    start_anew = "hypopt.study_name=NAME begins another study"
    found = [direction.name.lower() for direction in study.directions]
    if found != list(directions):
        raise ConfigError(
            f"hypopt.direction: the study '{study.study_name}' has {found}, not "
            f"{list(directions)}: {start_anew}"
        )
    if (names := study.user_attrs.get("objectives", list(objectives))) != list(objectives):
        raise ConfigError(
            f"monitor_return: the study '{study.study_name}' is about {names}, not "
            f"{list(objectives)}: {start_anew}"
        )
    for trial in reversed(study.get_trials(deepcopy=False)):
        for key, old in trial.distributions.items():
            new = space.distributions.get(key, old)
            if not is_comparable(old, new):
                raise ConfigError(
                    f"{key}: trials of the study '{study.study_name}' were drawn from "
                    f"{in_words(old)}, which cannot become {in_words(new)} (ends of intervals "
                    f"may move): {start_anew}"
                )

    if different := _new_fixed_settings(study, space):
        raise ConfigError(
            f"{', '.join(different)}: trials of the study '{study.study_name}' had other settings "
            f"than these, and cannot be compared with new ones: {start_anew}"
        )


def _new_fixed_settings(study: optuna.Study, space: Space) -> list[str]:
    """The settings, not drawn, by which new trials would differ from the last one of the study."""
    for trial in reversed(study.get_trials(deepcopy=False)):
        if "overrides" in trial.user_attrs:
            drawn = {*trial.params, *space.distributions}
            before, now = _fixed(trial.user_attrs["overrides"], drawn), _fixed(space.fixed, drawn)
            keys = {key for key in {**before, **now} if before.get(key) != now.get(key)}
            return sorted(f"{key}={now[key]}" if key in now else f"no {key}" for key in keys)
    return []


def _fixed(overrides: Sequence[str], drawn: set[str]) -> dict[str, str]:
    """What overrides say of settings that are neither drawn nor without influence on results."""
    settings = (override.partition("=")[::2] for override in overrides)
    named = {key.lstrip("+"): value for key, value in settings}
    free = {*drawn, "seed"}  # another seed is another draw of the same
    return {k: value for k, value in named.items() if k not in free and not is_how(k)}


def repeated(trials: Sequence[FrozenTrial]) -> set[int]:
    """Numbers of the failed trials that a later one repeats."""
    began = (trial.user_attrs for trial in trials if "is_void" not in trial.user_attrs)
    return {attributes["retry_of"] for attributes in began if "retry_of" in attributes}


@functools.cache  # opening one takes a second
def storage(file: Path) -> optuna.storages.RDBStorage:
    """A data base, made if there is none: by one process at a time."""
    with lock(file):
        return optuna.storages.RDBStorage(
            f"sqlite:///{file}", engine_kwargs={"connect_args": {"timeout": WAIT_SECONDS}}
        )


def lock(file: Path) -> FileLock:
    """Held by whoever takes trials, so that no two searches take the same one, or one too many."""
    return FileLock(file.with_suffix(".lock"), is_singleton=True)  # may be taken while it is held
