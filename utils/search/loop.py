"""The search loop: take trials, launch their jobs, record the results and print the best trials."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import optuna
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.utils import instantiate
from omegaconf import DictConfig
from optuna.samplers import BaseSampler
from optuna.trial import Trial, TrialState

from utils.configs.checks import ConfigError
from utils.runs.status_file import read_job
from utils.search import goals, study_file
from utils.search import study as studies
from utils.search.space import Space

MAX_SHOWN = 10  # maximum number of trials of a Pareto front to print
# Names of error classes: importing the classes themselves takes seconds.
NON_FINITE, UNKNOWN_METRIC = "NonFiniteLossError", "UnknownMetricError"


def run_search(cfg: DictConfig, arguments: Sequence[str], launcher: Launcher) -> None:
    """Run the search that a config with a `hydra` node defines, over the ranges in `arguments`."""
    objectives, directions = goals(cfg)
    search = Search(
        study_file(cfg),
        str(cfg.hypopt.study_name),  # a name such as 123 is parsed as a number
        objectives=objectives,
        directions=directions,
        space=Space.of(arguments),
        n_trials=cfg.hypopt.n_trials,
        retry_failed=cfg.hypopt.retry_failed,
        sampler=cfg.hydra.sweeper.sampler,
    )
    search.run(launcher, Path(cfg.hydra.sweep.dir), cfg.hypopt.n_parallel)


@dataclass
class Search:
    """Take trials from a study, launch their jobs and record their results.

    Several processes may search the same study concurrently; they share its `n_trials`. The
    parameters of a trial depend on the sampler's `seed`, the number of earlier trials and, for
    adaptive samplers, the results of those trials, but not on interruptions. A trial whose
    objective or loss was not finite is never repeated, because it would fail again.
    """

    file: Path  # SQLite file; the file and the study are created if missing
    name: str  # name of the study
    objectives: Sequence[str]  # names of the metrics that the jobs return
    directions: Sequence[str]  # minimize or maximize, one per objective
    space: Space
    n_trials: int  # including failed ones; a repeated trial counts once
    retry_failed: bool  # whether to repeat trials that failed in earlier calls
    sampler: Mapping[str, object]  # config of an Optuna sampler

    def run(self, launcher: Launcher, sweep_dir: Path, n_parallel: int) -> None:
        """Run the missing trials, `n_parallel` at a time; print the best trials.

        The status file of each job is in `sweep_dir`/<job number>. Raises ConfigError if the
        sampler cannot be used, or if the search differs from the study's definition and the study
        has complete or running trials. A study that differs but has no such trials is replaced.
        """
        self._make_sampler(0)  # fails before anything is written
        self.owner, n_launched = studies.new_owner(), 0
        with studies.owner_lock(self.file, self.owner):
            with studies.study_lock(self.file, self.name):
                self.study = self._open()
                self._repeat()
            while trials := self._take(n_parallel):
                jobs = [trial.user_attrs["overrides"] for trial in trials]
                returns = launcher.launch(jobs, initial_job_idx=n_launched)
                for num, (trial, job) in enumerate(zip(trials, returns, strict=True), n_launched):
                    self._record(trial, job, read_job(sweep_dir / str(num)))
                n_launched += len(trials)
        if n_launched == 0:
            print(f"Nothing to run: the study already has {self.n_trials} trials (hypopt.n_trials)")
        print(summary(self.study))

    def _open(self) -> optuna.Study:
        shared = studies.definition(self.objectives, self.directions, self.space)
        directions, storage = list(self.directions), studies.storage(self.file)
        if self.name in studies.names(self.file):
            study = studies.load(self.file, self.name)
            if studies.fits(study, shared, self.file):
                return study
            optuna.delete_study(study_name=self.name, storage=storage)
        study = optuna.create_study(storage=storage, study_name=self.name, directions=directions)
        study.set_user_attr("definition", shared)
        return study

    def _repeat(self) -> None:
        """Re-enqueue trials of killed searches, whose runs resume, and failed ones if requested."""
        trials = self.study.get_trials(deepcopy=False)
        stale = {
            trial.number
            for trial in trials
            if trial.state == TrialState.RUNNING and not studies.is_alive(self.file, trial)
        }
        waiting = {t.user_attrs.get("retry_of") for t in trials if t.state == TrialState.WAITING}
        for trial in studies.counted(self.study):
            is_failed = trial.state == TrialState.FAIL and "is_result" not in trial.user_attrs
            is_stale = trial.number in stale
            if (is_stale or (is_failed and self.retry_failed)) and trial.number not in waiting:
                self.study.enqueue_trial(trial.params, user_attrs={"retry_of": trial.number})
        for number in stale:  # last, in case this process is killed midway
            self.study.tell(number, state=TrialState.FAIL)

    def _take(self, n: int) -> list[Trial]:
        """Return up to n trials to run, repetitions first; none if the study has all its trials."""
        taken: list[Trial] = []
        with studies.study_lock(self.file, self.name):
            while len(taken) < n and self._is_any_missing():
                taken.append(self._ask())
        return taken

    def _is_any_missing(self) -> bool:
        is_waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        return bool(is_waiting) or len(studies.counted(self.study)) < self.n_trials

    def _ask(self) -> Trial:
        """Return the next trial: a waiting one if there is one, else a new one."""
        trials = self.study.get_trials(deepcopy=False)
        n_drawn = sum(studies.has_started(t) and "retry_of" not in t.user_attrs for t in trials)
        self.study.sampler = self._make_sampler(n_drawn)
        trial = self.study.ask(self.space.distributions)
        trial.set_user_attr("owner", self.owner)
        trial.set_user_attr("overrides", list(self.space.job(trial.params)))
        return trial

    def _make_sampler(self, n_drawn: int) -> BaseSampler:
        """Return a sampler that is seeded for the trial after the first `n_drawn`."""
        try:
            seed = np.random.SeedSequence([int(self.sampler["seed"]), n_drawn])
            return instantiate(self.sampler, seed=int(seed.generate_state(1)[0]))
        except Exception as error:  # Hydra wraps the sampler's error
            reason = str(error.__cause__ or error).splitlines()[0]
            raise ConfigError(
                f"hydra/sweeper/sampler: {self.sampler['_target_']} cannot be used ({reason}): "
                "choose random, tpe or nsgaii; hypopt=none runs all combinations of choices"
            ) from error

    def _record(self, trial: Trial, job: JobReturn, status: Mapping[str, object]) -> None:
        """Record the result of a trial's job; the trial fails unless all objectives are finite.

        If the job failed because an objective is not a metric, its error is re-raised, because all
        other jobs would fail too.
        """
        if runs := status.get("runs"):
            trial.set_user_attr("run", list(runs.values())[-1])
        if {"started", "finished"} <= status.keys():
            start, end = (datetime.fromisoformat(status[key]) for key in ("started", "finished"))
            trial.set_user_attr("seconds", round((end - start).total_seconds(), 1))
        objectives = studies.objective_names(self.study)
        try:
            values = _floats(job.return_value, len(objectives))
        except Exception as error:  # a job may raise anything; the search continues
            # for a submitted job, only its status file names the error's class
            classes = {type(error).__name__, str(status.get("error", "")).partition(":")[0]}
            is_result = NON_FINITE in classes
            self._fail(trial, f"{type(error).__name__}: {error}", is_result)
            if UNKNOWN_METRIC in classes:
                raise
            return
        bad = [
            f"{k} is {v}" for k, v in zip(objectives, values, strict=True) if not math.isfinite(v)
        ]
        if bad:
            self._fail(trial, ", ".join(bad), is_result=True)
        else:
            self.study.tell(trial, values)

    def _fail(self, trial: Trial, error: str, is_result: bool) -> None:
        trial.set_user_attr("error", error)
        if is_result:
            trial.set_user_attr("is_result", True)
        self.study.tell(trial, state=TrialState.FAIL)


def _floats(returned: object, n: int) -> list[float]:
    values = list(returned) if isinstance(returned, (list, tuple)) else [returned]
    if len(values) != n or None in values:
        raise ValueError(f"the job returned {returned!r}, but the search has {n} objectives")
    return [float(value) for value in values]


def summary(study: optuna.Study) -> str:
    """Summarise a study in a few lines: the number of trials in each state, and the best trials."""
    trials, best = studies.counted(study), studies.best_trials(study)
    n_complete, n_failed, n_running = (
        sum(trial.state == state for trial in trials)
        for state in (TrialState.COMPLETE, TrialState.FAIL, TrialState.RUNNING)
    )
    found = f"{len(trials)} trials, {n_complete} complete, {n_failed} failed"
    found += f", {n_running} running in another search" if n_running else ""
    lines = [f"Search {study.study_name}: {found}"]
    objectives = studies.objective_names(study)
    if len(objectives) > 1:
        shown = f", first {MAX_SHOWN} shown" if len(best) > MAX_SHOWN else ""
        lines.append(f"Pareto front of {' and '.join(objectives)}: {len(best)} trials{shown}")
    elif best:
        lines.append(f"Best {objectives[0]} ({study.direction.name.lower()}d):")
    for trial in best[:MAX_SHOWN]:
        values = ", ".join(f"{n} {v:.5g}" for n, v in zip(objectives, trial.values, strict=True))
        settings = " ".join(f"{key}={_format(value)}" for key, value in trial.params.items())
        lines += [f"  trial {trial.number}: {values}", f"    {settings}"]
        if run := trial.user_attrs.get("run"):
            lines.append(f"    {run}")
    return "\n".join(lines)


def _format(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
