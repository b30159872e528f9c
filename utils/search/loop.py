"""The loop of a search: take trials, launch their jobs, record how they ended, print the best."""

from collections.abc import Sequence
from pathlib import Path

import optuna
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig
from optuna.trial import FrozenTrial, TrialState

from utils.runs.status_file import read_job
from utils.search import monitored, study_file
from utils.search.space import Space
from utils.search.study import best_trials, counted, objective_names
from utils.search.worker import Worker

MAX_SHOWN = 10  # trials of a Pareto front


def run_search(cfg: DictConfig, arguments: Sequence[str], launcher: Launcher) -> None:
    """Run the search of a config, including `hydra`, with the ranges of a command line."""
    worker = Worker(
        study_file(cfg),
        str(cfg.hypopt.study_name),  # which may look like a number
        objectives=monitored(cfg),
        directions=cfg.hypopt.direction,
        space=Space.of(arguments),
        n_trials=cfg.hypopt.n_trials,
        retry_failed=cfg.hypopt.retry_failed,
        sampler=cfg.hydra.sweeper.sampler,
    )
    run_trials(worker, launcher, Path(cfg.hydra.sweep.dir), cfg.hypopt.n_parallel)


def run_trials(worker: Worker, launcher: Launcher, sweep_dir: Path, n_parallel: int) -> None:
    """Run the missing trials of a study, `n_parallel` at a time; print the best ones.

    Parameters
    ----------
    launcher : of Hydra; it returns when all jobs of a batch have ended.
    sweep_dir : where each job leaves its trace, in a folder named after its number.
    """
    n_launched = 0
    with worker:
        while trials := worker.take(n_parallel):
            jobs = [trial.user_attrs["overrides"] for trial in trials]
            returns = launcher.launch(jobs, initial_job_idx=n_launched)
            for num, (trial, job) in enumerate(zip(trials, returns, strict=True), n_launched):
                worker.record(trial, job, read_job(sweep_dir / str(num)))
            n_launched += len(trials)
        if n_launched == 0:
            print(f"Nothing to run: the study has its {worker.n_trials} trials (hypopt.n_trials)")
        if n := worker.n_elsewhere():
            print(f"{n} trials are running in another search")
        print(summary(worker.study))


def summary(study: optuna.Study) -> str:
    """State of a study in a few lines: its trials, and the best on validation data."""
    trials, best = counted(study), best_trials(study)
    states = {
        "complete": TrialState.COMPLETE,
        "failed": TrialState.FAIL,
        "running": TrialState.RUNNING,
    }
    n_of = {word: sum(t.state == state for t in trials) for word, state in states.items()}
    found = ", ".join(f"{n} {word}" for word, n in n_of.items() if n or word == "complete")
    lines = [f"Search {study.study_name}: {len(trials)} trials, {found}"]
    if not best:
        return lines[0]
    objectives = objective_names(study)
    if len(objectives) > 1:
        shown = f", the first {MAX_SHOWN}" if len(best) > MAX_SHOWN else ""
        lines.append(f"Pareto front of {' and '.join(objectives)}: {len(best)} trials{shown}")
    else:
        lines.append(f"Best {objectives[0]} ({study.direction.name.lower()}d):")
    for trial in best[:MAX_SHOWN]:
        lines += _paragraph(trial, objectives)
    return "\n".join(lines)


def _paragraph(trial: FrozenTrial, objectives: Sequence[str]) -> list[str]:
    values = ", ".join(f"{n} {v:.5g}" for n, v in zip(objectives, trial.values, strict=True))
    settings = " ".join(f"{key}={_rounded(value)}" for key, value in trial.params.items())
    run = trial.user_attrs.get("run")
    return [f"  trial {trial.number}: {values}", f"    {settings}"] + (
        [f"    {run}"] if run else []
    )


def _rounded(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
