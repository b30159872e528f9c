"""How the jobs and the runs of an experiment stand, from what they leave on disk.

A job is one call of `main`, known by its settings; it makes a run of each stage. Reads small files
only, so that an experiment of a thousand runs takes a second.
"""

import os
import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from utils.cluster import slurm
from utils.runs.identity import STAGES, experiment_folder, is_how
from utils.runs.job_status import FILE, read_trace
from utils.runs.run import STATUS, read_status
from utils.runs.status_file import STATES


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
    def is_local(self) -> bool:
        """Whether `slurm=local` started it, whose ids are those of processes."""
        return _is_local(self.trace)

    @property
    def since(self) -> str | None:
        """When it came into its state."""
        keys = {"queued": ("queued",), "running": ("started",)}
        found = (self.trace.get(key) for key in keys.get(self.state, ("finished", "started")))
        return next(filter(None, found), None)


def settings_of(trace: dict) -> dict[str, str]:
    """What was asked of a job: {"seed": "1"}."""
    given = [override.lstrip("+").split("=", 1) for override in trace["overrides"]]
    return dict(item for item in given if len(item) == 2)


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
            status = read_status(Path(folder), pretrained / os.path.relpath(folder, root))
            if status is not None:
                found[folder] = status
    return found


def find_jobs(
    outputs: Path,
    experiment: str,
    runs: dict[str, dict],
    *,
    results: Path,
    mode: str,
    defaults: Mapping[str, str],
) -> list[Job]:
    """The jobs of an experiment in one mode; of several attempts at the same, the latest.

    Parameters
    ----------
    runs : what `find_runs` found.
    results : the folder of the experiment's results that are meant.
    defaults : the settings "paths.results" and "experiment_name" of jobs that do not say them.
    """
    traces = [(folder, read_trace(folder)) for folder in _folders(outputs, experiment)]
    meant = [item for item in traces if _is_of(item[1], mode, os.path.abspath(results), defaults)]
    traces = _as_the_queue_says(_latest(meant))
    jobs = [Job(folder, trace, *_stage(trace, runs)) for folder, trace in traces]
    return sorted(jobs, key=lambda job: (STATES.index(job.state), job.sweep, int(job.trace["num"])))


def _is_of(trace: dict, mode: str, results: str, defaults: Mapping[str, str]) -> bool:
    """Whether a job has this mode and its runs are, or will be, in this folder."""
    if not {"queued", "started"} & set(trace):
        return True  # nobody knows: its trace is damaged
    settings = {**defaults, **settings_of(trace)}
    if settings.get("mode", "none") != mode:
        return False
    if runs := runs_of(trace):
        return Path(list(runs.values())[-1]).is_relative_to(results)  # the first may be elsewhere
    return os.path.abspath(Path(settings["paths.results"], experiment_folder(settings))) == results


def _latest(traces: list[tuple[Path, dict]]) -> list[tuple[Path, dict]]:
    """The traces less those of jobs that were attempted again.

    Attempts at the same job make the same runs. One that did not begin has none yet: it is known
    by its settings.
    """
    kept = []
    again: set[str] = set()  # runs of later attempts
    begun, waiting = set(), set()  # settings of later attempts
    for folder, trace in sorted(traces, key=_age, reverse=True):
        runs = list(runs_of(trace).values())
        asked = frozenset(item for item in settings_of(trace).items() if not is_how(item[0]))
        is_superseded = runs[-1] in again if runs else asked in begun
        if not asked or not (is_superseded or asked in waiting):
            kept.append((folder, trace))
        again.update(runs)
        (begun if runs else waiting).add(asked)
    return kept


def _age(item: tuple[Path, dict]) -> tuple[str, str]:
    folder, trace = item
    return str(trace.get("queued") or trace.get("started") or ""), folder.parent.parent.name


def _folders(outputs: Path, experiment: str) -> Iterable[Path]:
    """The folders of the experiment's jobs that left a trace."""
    own = re.compile(rf"{re.escape(experiment)}_\d+")
    for sweep in outputs.glob(f"*/{experiment}_*"):
        if own.fullmatch(sweep.name):
            yield from (file.parent for file in sweep.glob(f"[0-9]*/{FILE}"))


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
    queue = _slurm_queue() if on_slurm else None
    return [
        (folder, trace | _in_queue(folder, trace, queue) if _may_wait(trace) else trace)
        for folder, trace in traces
    ]


def _slurm_queue() -> set[str] | None:
    """The ids of all jobs that wait or run on the cluster; None where it does not say."""
    try:
        states = slurm.states(is_of_all_users=True)
    except slurm.SlurmUnavailableError:
        return None
    return {job_id for job_id, state in states.items() if state not in slurm.ENDED}


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
