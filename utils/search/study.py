"""A study that is under way: which trials come next, and how they ended."""

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import optuna
from hydra.utils import instantiate
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from utils.composing import ConfigError
from utils.search.database import check_same, counted, load, lock, names, repeated, storage
from utils.search.owner import Owner
from utils.search.space import Space


class Study:
    """A study that is under way; several processes may work on it at once.

    Context manager: while it is open, its unfinished trials are its own.

    Parameters
    ----------
    file : data base; made if there is none.
    name : of the study in it; made if there is none.
    objectives : names of the metrics.
    directions : minimize or maximize, for each.
    space : what is drawn.
    n_trials : how many the study shall have in all. Failed ones count, unless they are repeated.
    retry_failed : whether to repeat what failed before this object was made. A trial whose
        objective or loss was not finite is not repeated: it would be the same.
    sampler : config of one of Optuna's samplers. A trial depends on its `seed` and the trial's
        number (and on the trials before it if the sampler learns), but not on interruptions.

    Raises
    ------
    ConfigError
        If the study has other objectives, or trials that Optuna cannot compare with those of space.
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
        if "seed" not in sampler:
            raise ConfigError(
                f"hydra/sweeper/sampler: a search draws from random, tpe, motpe, cmaes or nsgaii, "
                f"not from {sampler.get('_target_')}; hypopt=none runs all combinations of choices"
            )
        self.objectives = list(objectives)
        self._space, self._n_trials, self._sampler = space, n_trials, sampler
        self._lock = lock(file)
        self._owner = Owner(file.parent)
        with self._lock:
            if name in names(file):
                self.study = load(file, name)
                check_same(self.study, objectives, directions, space)
            else:
                self.study = optuna.create_study(
                    storage=storage(file), study_name=name, directions=list(directions)
                )
                self.study.set_user_attr("objectives", self.objectives)
        self._to_retry = [trial.number for trial in self._trials() if _is_failed(trial)]
        if not retry_failed:
            self._to_retry = []

    def __enter__(self) -> "Study":
        self._owner.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._owner.release()

    def take(self, n: int) -> list[Trial]:
        """At most n trials to run: first those that lost their search, then those that failed,
        then new ones. Empty once the study has all of its trials."""
        taken: list[Trial] = []
        with self._lock:
            while len(taken) < n:
                trial = self._take_lost() or self._take_failed() or self._take_new()
                if trial is None:
                    break
                trial.set_user_attr("overrides", list(self._space.job(trial.params)))
                taken.append(trial)
        return taken

    def complete(self, trial: Trial, values: Sequence[float]) -> None:
        """Record the objectives of a trial; as failed if one of them is not finite."""
        bad = [
            f"{name} is {value}"
            for name, value in zip(self.objectives, values, strict=True)
            if not math.isfinite(value)
        ]
        if bad:
            self.fail(trial, ", ".join(bad), is_result=True)
        else:
            self.study.tell(trial, list(values))

    def fail(self, trial: Trial, error: str, *, is_result: bool = False) -> None:
        """Record that a trial has no result, or that to fail is its result, never repeated."""
        trial.set_user_attr("error", error)
        if is_result:
            trial.set_user_attr("is_result", True)
        self.study.tell(trial, state=TrialState.FAIL)

    def n_elsewhere(self) -> int:
        """Trials that another search is running at this moment."""
        running = (t for t in self._trials() if t.state == TrialState.RUNNING)
        return sum(self._owner.is_other(t.user_attrs.get("owner")) for t in running)

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _take_lost(self) -> Trial | None:
        """A trial whose search was killed; its run goes on from its last checkpoint."""
        for found in self._trials():
            owner = found.user_attrs.get("owner")
            if found.state != TrialState.RUNNING or self._owner.is_alive(owner):
                continue
            trial = self._own(found)
            if "overrides" in found.user_attrs and self._is_of_space(found):
                return trial
            trial.set_user_attr("is_void", True)
            self.fail(trial, "its search was killed before it began, or has another space now")
        return None

    def _take_failed(self) -> Trial | None:
        """A copy of a trial that failed: Optuna keeps finished ones as they are."""
        while self._to_retry:
            number = self._to_retry.pop(0)
            trials = self._trials()
            if number in repeated(trials) or not self._is_of_space(trials[number]):
                continue
            # all that makes it a trial of this search in one write, which a kill cannot divide
            attributes = {
                "retry_of": number,
                "owner": self._owner.id,
                "overrides": list(self._space.job(trials[number].params)),
            }
            with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
                copy = optuna.trial.create_trial(
                    state=TrialState.RUNNING,
                    params=trials[number].params,
                    distributions=trials[number].distributions,
                    user_attrs=attributes,
                )
                self.study.add_trial(copy)
            return self._own(self._trials()[-1])
        return None

    def _take_new(self) -> Trial | None:
        trials = self._trials()
        if len(counted(trials)) >= self._n_trials:
            return None
        # each trial has a seed of its own: drawn again from the start, all would be repeated
        seed = np.random.SeedSequence([int(self._sampler["seed"]), len(trials)])
        self.study.sampler = instantiate(self._sampler, seed=int(seed.generate_state(1)[0]))
        trial = self.study.ask(self._space.distributions)
        trial.set_user_attr("owner", self._owner.id)
        return trial

    def _own(self, found: FrozenTrial) -> Trial:
        self.study.sampler = RandomSampler()  # nothing is drawn
        trial = Trial(self.study, found._trial_id)
        trial.set_user_attr("owner", self._owner.id)
        return trial

    def _is_of_space(self, trial: FrozenTrial) -> bool:
        return trial.params.keys() == self._space.distributions.keys()


def _is_failed(trial: FrozenTrial) -> bool:
    attributes = trial.user_attrs
    is_final = "is_result" in attributes or "is_void" in attributes
    return trial.state == TrialState.FAIL and not is_final
