"""A process that runs trials of a study: which trials come next, and how they ended."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import optuna
from hydra.core.utils import JobReturn
from hydra.utils import instantiate
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from utils.configs.composing import ConfigError
from utils.search.owner import Owner
from utils.search.space import Space
from utils.search.study import (
    counted,
    definition,
    fits,
    has_started,
    load,
    lock,
    names,
    objective_names,
    storage,
)

# names, since importing the classes takes seconds
NON_FINITE, UNKNOWN_METRIC = "NonFiniteLossError", "UnknownMetricError"


class Worker:
    """Takes trials of a study and records their results; several may work on one study at once.

    Context manager: while it is open, its unfinished trials are its own.

    Parameters
    ----------
    file : SQLite file with the study; created if there is none.
    name : of the study in it; created if there is none.
    objectives : names of the metrics that the jobs return.
    directions : minimize or maximize, for each.
    space : what is drawn.
    n_trials : total size of the study, including failed trials, but not those that are repeated.
    retry_failed : whether to repeat the trials that failed in earlier calls. A trial whose
        objective or loss was not finite is never repeated: the result would be the same.
    sampler : config of one of Optuna's samplers. A trial depends on its `seed` and on how many
        trials were drawn before (and, if the sampler learns, on their results), not on
        interruptions.

    Raises
    ------
    ConfigError
        If trials of the study could not be compared with new ones. Without complete trials, the
        study is replaced.
    """

    def __init__(
        self,
        file: Path,
        name: str,
        *,
        objectives: Sequence[str],
        directions: Sequence[str],
        space: Space,
        n_trials: int,
        retry_failed: bool,
        sampler: Mapping[str, object],
    ):
        self.n_trials = n_trials
        self._space, self._retry_failed = space, retry_failed
        self._sampler = sampler
        self._make_sampler(0)  # fails before anything is written
        self._lock, self._owner = lock(file), Owner(file.parent)
        shared = definition(objectives, directions, space)
        with self._lock:
            if name in names(file) and not fits(load(file, name), shared, file.parent):
                optuna.delete_study(study_name=name, storage=storage(file))
            if name in names(file):
                self.study = load(file, name)
            else:
                self.study = optuna.create_study(
                    storage=storage(file), study_name=name, directions=list(directions)
                )
                self.study.set_user_attr("definition", shared)

    def __enter__(self) -> "Worker":
        self._owner.acquire()
        if self._retry_failed:
            with self._lock:
                for trial in counted(self.study):
                    if trial.state == TrialState.FAIL and "is_result" not in trial.user_attrs:
                        self._enqueue_again(trial)
        return self

    def __exit__(self, *_: object) -> None:
        self._owner.release()

    def take(self, n: int) -> list[Trial]:
        """At most n trials to run: repetitions first, then new ones; empty once none is missing."""
        taken: list[Trial] = []
        with self._lock:
            self._release_stale()
            while len(taken) < n and self._is_any_missing():
                taken.append(self._ask())
        return taken

    def record(self, trial: Trial, job: JobReturn, trace: Mapping[str, object]) -> None:
        """Record how the job of a trial ended; as failed unless all objectives are finite.

        Raises the job's error if an objective is no metric: all other jobs would fail as well.
        """
        if runs := trace.get("runs"):
            trial.set_user_attr("run", list(runs.values())[-1])
        if "finished" in trace:
            start, end = (datetime.fromisoformat(trace[key]) for key in ("started", "finished"))
            trial.set_user_attr("seconds", round((end - start).total_seconds(), 1))
        names = objective_names(self.study)
        try:
            values = _floats(job.return_value, len(names))
        except Exception as error:  # of the job, which may raise anything: others go on
            kinds = _kinds(error, trace)
            is_result = NON_FINITE in kinds  # the loss, and would be again
            self._fail(trial, f"{type(error).__name__}: {error}", is_result)
            if UNKNOWN_METRIC in kinds:
                raise
            return
        bad = [f"{k} is {v}" for k, v in zip(names, values, strict=True) if not math.isfinite(v)]
        if bad:
            self._fail(trial, ", ".join(bad), is_result=True)
        else:
            self.study.tell(trial, values)

    def n_elsewhere(self) -> int:
        """How many trials another search is running."""
        owners = [t.user_attrs.get("owner") for t in self._of_state(TrialState.RUNNING)]
        return sum(owner != self._owner.id and self._owner.is_alive(owner) for owner in owners)

    def _is_any_missing(self) -> bool:
        is_waiting = bool(self._of_state(TrialState.WAITING))
        return is_waiting or len(counted(self.study)) < self.n_trials

    def _release_stale(self) -> None:
        """Fail the trials whose search was killed, and enqueue them again: their runs resume."""
        for trial in self._of_state(TrialState.RUNNING):
            if not self._owner.is_alive(trial.user_attrs.get("owner")):
                if has_started(trial):
                    self._enqueue_again(trial)  # first, since this process may be killed as well
                self.study.tell(trial.number, state=TrialState.FAIL)

    def _enqueue_again(self, trial: FrozenTrial) -> None:
        repetitions = (t for t in self._trials() if t.state == TrialState.WAITING or has_started(t))
        if trial.number not in {t.user_attrs.get("retry_of") for t in repetitions}:
            self.study.enqueue_trial(trial.params, user_attrs={"retry_of": trial.number})

    def _ask(self) -> Trial:
        """The next trial: one that waits, or a new one."""
        n_drawn = sum(has_started(t) and "retry_of" not in t.user_attrs for t in self._trials())
        self.study.sampler = self._make_sampler(n_drawn)
        trial = self.study.ask(self._space.distributions)
        trial.set_user_attr("owner", self._owner.id)
        trial.set_user_attr("overrides", list(self._space.job(trial.params)))
        return trial

    def _make_sampler(self, n_drawn: int) -> BaseSampler:
        """A sampler with a seed of its own for the trial that follows `n_drawn` others."""
        try:
            seed = np.random.SeedSequence([int(self._sampler["seed"]), n_drawn])
            return instantiate(self._sampler, seed=int(seed.generate_state(1)[0]))
        except Exception as error:  # Hydra's, whatever the sampler raised
            reason = str(error.__cause__ or error).splitlines()[0]
            raise ConfigError(
                f"hydra/sweeper/sampler: {self._sampler['_target_']} cannot be used ({reason}): "
                "take random, tpe or nsgaii; hypopt=none runs all combinations of choices"
            ) from error

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _of_state(self, state: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=(state,))

    def _fail(self, trial: Trial, error: str, is_result: bool) -> None:
        trial.set_user_attr("error", error)
        if is_result:
            trial.set_user_attr("is_result", True)
        self.study.tell(trial, state=TrialState.FAIL)


def _kinds(error: Exception, trace: Mapping[str, object]) -> set[str]:
    """Names of a job's error as it was raised, by the launcher if submitted, and in its trace."""
    return {type(error).__name__, str(trace.get("error", "")).partition(":")[0]}


def _floats(returned: object, n: int) -> list[float]:
    values = list(returned) if isinstance(returned, (list, tuple)) else [returned]
    if len(values) != n or None in values:
        raise ValueError(f"the job returned {returned!r}, but the search has {n} objectives")
    return [float(value) for value in values]
