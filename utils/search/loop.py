"""The loop of a search: take trials, launch their jobs, record how they ended; then say who won."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import optuna
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from optuna.trial import FrozenTrial, Trial, TrialState

from utils.search.database import best_trials, counted, objectives_of
from utils.search.space import Space
from utils.search.study import Study
from utils.traces import read_trace

MAX_SHOWN = 10  # trials of a front


def run_trials(
    arguments: Sequence[str],
    *,
    launcher: Launcher,
    sweep_dir: Path,
    n_parallel: int,
    file: Path,
    **settings: object,
) -> None:
    """Run what is missing of a study, in batches of `n_parallel`; print the best trials.

    Parameters
    ----------
    arguments : the command line, with what is drawn.
    launcher : of Hydra; it returns when all jobs of a batch have ended.
    sweep_dir : where the jobs leave their traces, in folders that are their numbers.
    file, settings : see `Study`.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with Study(file, space=Space.of(arguments), **settings) as study:
        n_launched = 0
        while trials := study.take(n_parallel):
            jobs = [trial.user_attrs["overrides"] for trial in trials]
            returns = launcher.launch(jobs, initial_job_idx=n_launched)
            for i, (trial, job) in enumerate(zip(trials, returns, strict=True)):
                _record(study, trial, job, sweep_dir / str(n_launched + i))
            n_launched += len(trials)
        if n_launched == 0:
            n_trials = settings["n_trials"]
            print(f"Nothing to run: the study has {n_trials} trials; hypopt.n_trials is the total")
        if n := study.n_elsewhere():
            print(f"{n} trials are under way in another search")
        print(summary(study.study, file))


def summary(study: optuna.Study, file: Path) -> str:
    """How a search stands, in words: its trials, and the best on validation data."""
    trials, best = counted(study.get_trials(deepcopy=False)), best_trials(study)
    states = {"complete": TrialState.COMPLETE, "failed": TrialState.FAIL}
    states["under way"] = TrialState.RUNNING
    n_of = {word: sum(t.state == state for t in trials) for word, state in states.items()}
    found = ", ".join(f"{n} {word}" for word, n in n_of.items() if n or word == "complete")
    lines = [f"Search {study.study_name}: {len(trials)} trials, {found} ({file})"]
    if not best:
        return lines[0]
    objectives = objectives_of(study)
    if len(objectives) > 1:
        shown = f", of which the first {MAX_SHOWN}" if len(best) > MAX_SHOWN else ""
        lines.append(f"Beaten by no other in {' and '.join(objectives)}: {len(best)}{shown}")
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


def _record(study: Study, trial: Trial, job: JobReturn, folder: Path) -> None:
    """Put how a job ended into its trial."""
    trace = read_trace(folder)
    if runs := trace.get("runs"):
        trial.set_user_attr("run", list(runs.values())[-1])
    if "finished" in trace:
        duration = datetime.fromisoformat(trace["finished"]) - datetime.fromisoformat(
            trace["started"]
        )
        trial.set_user_attr("seconds", round(duration.total_seconds(), 1))
    try:
        values = _floats(job.return_value, len(study.objectives))
    except Exception as error:  # the job's own, whatever it is: others go on
        message = f"{type(error).__name__}: {error}"
        study.fail(trial, message, is_result=_has_diverged(error, trace))
    else:
        study.complete(trial, values)


def _has_diverged(error: Exception, trace: Mapping[str, object]) -> bool:
    """Whether a job failed because its loss became NaN or infinite, which it would do again.

    The error of a submitted job is one of the launcher; the trace says which its own was.
    """
    from lossyless.tracking import NonFiniteLossError  # seconds, where only failures need it

    said = str(trace.get("error", "")).partition(":")[0]
    return isinstance(error, NonFiniteLossError) or said == NonFiniteLossError.__name__


def _floats(returned: object, n: int) -> list[float]:
    values = list(returned) if isinstance(returned, (list, tuple)) else [returned]
    if len(values) != n or None in values:
        raise ValueError(f"the job returned {returned!r}, but the search has {n} objectives")
    return [float(value) for value in values]
