"""How the jobs and the runs of an experiment stand, from what they leave on disk.

A job is one call of `main`, known by its settings; it makes a run of each stage. Reads small files
only, so that an experiment of a thousand runs takes a second.
"""

import os
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from utils import scheduler
from utils.identity import STAGES
from utils.runs import LOCK, STATUS
from utils.states import STATES, read_state
from utils.traces import FILE, read_trace

# Settings that change how a job is run, not what it is.
HOW = ("job_id", "slurm", "timeout_min", "parallel_jobs", "logger", "on_failed")


@dataclass(frozen=True)
class Job:
    """The latest attempt at one combination of settings.

    Attributes
    ----------
    folder : of its trace: outputs/<sweep>/<experiment>_<pid>/<num>.
    trace : what it says of itself, with the state it is really in.
    stage, run : the first stage that is not done, and the status of its run, as far as known.
    """

    folder: Path
    trace: dict
    stage: str
    run: dict

    @property
    def state(self) -> str:
        return self.trace["state"]

    @property
    def runs(self) -> dict[str, str]:
        """The folders of its runs, by stage."""
        return runs_of(self.trace)

    @property
    def sweep(self) -> str:
        """The id by which a sweep is continued."""
        return self.folder.parent.parent.name

    @property
    def settings(self) -> dict[str, str]:
        return settings_of(self.trace)

    @property
    def since(self) -> str | None:
        """When it came into its state."""
        keys = {"queued": ("queued",), "running": ("started",)}
        found = (self.trace.get(key) for key in keys.get(self.state, ("finished", "started")))
        return next(filter(None, found), None)


def settings_of(trace: dict) -> dict[str, str]:
    """What was asked of a job: {"seed": "1"}."""
    return dict(override.split("=", 1) for override in trace["overrides"] if "=" in override)


def runs_of(trace: dict) -> dict[str, str]:
    """The folders of a job's runs, by stage; none before it began."""
    return {stage: os.path.abspath(run) for stage, run in trace.get("runs", {}).items()}


def find_runs(experiment: Path, pretrained: Path) -> dict[str, dict]:
    """The status of each run, by its folder: done, running, lost, ...

    Parameters
    ----------
    experiment : the folder of the experiment's results.
    pretrained : the folder of the same name for checkpoints, where the locks are.
    """
    found = {}
    root = os.path.abspath(experiment)
    for folder, subfolders, files in os.walk(root):
        if STATUS in files:
            subfolders.clear()  # figures
            work = pretrained / os.path.relpath(folder, root)
            status = read_state(Path(folder, STATUS), work / LOCK)
            if status is not None:
                found[folder] = status
    return found


def find_jobs(
    outputs: Path,
    experiment: str,
    mode: str,
    runs: dict[str, dict],
    *,
    results: Path,
    default_results: Path,
) -> list[Job]:
    """The jobs of an experiment in one mode; of several with the same settings, the latest.

    Parameters
    ----------
    runs : what `find_runs` found.
    results : the root of the results that are meant.
    default_results : where the results go of jobs whose settings do not say it.
    """
    latest: dict[frozenset, tuple[tuple, Path, dict]] = {}
    for folder in _folders(outputs, experiment):
        trace = read_trace(folder)
        settings = settings_of(trace)
        place = _place(trace) or settings.get("paths.results", default_results)
        is_here = Path(os.path.abspath(place)).is_relative_to(os.path.abspath(results))
        if settings.get("mode", "none") != mode or not is_here:
            continue
        key = frozenset(item for item in settings.items() if item[0] not in HOW)
        age = (str(trace.get("queued") or trace.get("started")), folder.parent.parent.name)
        if key not in latest or age > latest[key][0]:
            latest[key] = age, folder, trace
    traces = _as_the_queue_says([(folder, trace) for _, folder, trace in latest.values()])
    jobs = [Job(folder, trace, *_stage(trace, runs)) for folder, trace in traces]
    return sorted(jobs, key=lambda job: (STATES.index(job.state), job.sweep, int(job.trace["num"])))


def _folders(outputs: Path, experiment: str) -> Iterable[Path]:
    """The folders of the experiment's jobs that left a trace."""
    own = re.compile(rf"{re.escape(experiment)}_\d+")
    for sweep in outputs.glob(f"*/{experiment}_*"):
        if own.fullmatch(sweep.name):
            yield from (file.parent for file in sweep.glob(f"[0-9]*/{FILE}"))


def _place(trace: dict) -> str | None:
    """Where a job's first run is; None before it began."""
    return next(iter(runs_of(trace).values()), None)


def _stage(trace: dict, runs: dict[str, dict]) -> tuple[str, dict]:
    """The first stage of a job that is not done, and the status of its run."""
    for stage, folder in runs_of(trace).items():
        status = runs.get(folder, {"state": "new"})
        if status["state"] != "done":
            return stage, status
    return ("" if "runs" in trace else STAGES[0]), {}


def _as_the_queue_says(traces: list[tuple[Path, dict]]) -> list[tuple[Path, dict]]:
    """The traces, where those that wait do so only if somebody knows of them."""
    waiting = [trace for _, trace in traces if _may_wait(trace)]
    on_slurm = any(not _is_local(trace) and trace["scheduler_job"] for trace in waiting)
    queue = scheduler.in_slurm_queue() if on_slurm else None
    return [
        (folder, trace | _in_queue(folder, trace, queue) if _may_wait(trace) else trace)
        for folder, trace in traces
    ]


def _may_wait(trace: dict) -> bool:
    """Whether a job is queued, or was interrupted as one that the scheduler may start again."""
    return trace["state"] in ("queued", "interrupted") and "scheduler_job" in trace


def _is_local(trace: dict) -> bool:
    return settings_of(trace).get("slurm") == "local"


def _in_queue(folder: Path, trace: dict, queue: set[str] | None) -> dict[str, str]:
    """State and error of a job that may be in a queue."""
    scheduler_job, is_queued = trace["scheduler_job"], trace["state"] == "queued"
    if scheduler_job is not None and not _is_local(trace):
        if queue is None:
            return {}
        if scheduler_job in queue:
            return {"state": "queued", "queued": trace.get("finished") or trace.get("queued")}
        lost = "the scheduler does not know it any more, and it never began"
    else:
        # the number of the process that starts it is the end of the sweep's name
        process = int(folder.parent.name.rpartition("_")[2])
        is_here = trace.get("host", platform.node()) == platform.node()
        if not is_here or Path(f"/proc/{process}").exists():
            return {}
        lost = "the process that was to start it is gone"
    return {"state": "lost", "error": lost} if is_queued else {}
