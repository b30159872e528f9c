"""Status of an experiment's jobs and runs, read from disk, and the report at the end of a sweep.

A job is one call to `main`, identified by its settings; it creates one run per stage. Only small
files are read, so reading the status of a thousand runs takes about a second.
"""

import os
import platform
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from utils.runs.identity import STAGES, is_execution_setting
from utils.runs.saved_runs import read_status
from utils.runs.status_file import JOB, RUN, STATES, job_file, load, now, read_job

LOG = "job.log"  # a job's output, in the job's folder; absent if it went elsewhere
LONG = 100  # characters; the report prints longer errors only once
FIX = "Fix the error, then try again"


def find_runs(experiment: Path, pretrained: Path) -> dict[str, dict]:
    """Read the status of each run in an experiment's results folder; return {run folder: status}.

    `pretrained` is the experiment's checkpoint folder, which also contains the locks.
    """
    folders = [file.parent for file in sorted(experiment.glob(f"**/run_*/{RUN}"))]
    return {
        os.path.abspath(folder): read_status(folder, pretrained / folder.relative_to(experiment))
        for folder in folders
    }


def find_jobs(
    outputs: Path,
    results: Path,
    runs: Mapping[str, dict],
    read_queue: Callable[[], set[str] | None],
) -> list[dict]:
    """Read the status of the latest attempt at each job: the keys of `read_job`, plus:

    - folder: its output folder, outputs/<sweep>/<experiment_name>_<pid>/<num>
    - sweep: id for continuing its sweep
    - settings: its command line without execution settings
    - runs: folders of its runs, keyed by stage; empty until it starts
    - stage, run: its first unfinished stage and the status of that stage's run, if known

    `outputs` is the folder that contains all sweeps, `results` is the experiment's results folder,
    and `runs` is the output of `find_runs`. `read_queue` returns the ids of all jobs that are
    queued or running on the cluster, or None if the cluster cannot be queried.
    """
    name = re.compile(rf"{re.escape(results.name.removeprefix('exp_'))}_\d+")
    sweeps = [path for path in outputs.glob("*/*") if name.fullmatch(path.name)]
    attempts = [_attempt(file.parent) for sweep in sweeps for file in sweep.glob(f"[0-9]*/{JOB}")]
    root = os.path.abspath(results)
    jobs = _latest([a for a in attempts if not a["runs"] or _last_run(a).is_relative_to(root)])
    # the scheduler may restart interrupted jobs
    waiting = [j for j in jobs if j["state"] in ("queued", "interrupted") and "scheduler_job" in j]
    on_cluster = any(job["scheduler_job"] and not is_local(job) for job in waiting)
    queue = read_queue() if on_cluster else None
    for job in waiting:
        job.update(_queue_facts(job, queue))
    for job in jobs:
        job["stage"], job["run"] = _first_unfinished(job, runs)
    return sorted(
        jobs, key=lambda job: (STATES.index(job["state"]), job["sweep"], int(job["folder"].name))
    )


def is_local(job: dict) -> bool:
    """Whether a job was submitted with `slurm=local`, so that its job id is a process id."""
    return "slurm=local" in job.get("overrides", ())


def _attempt(folder: Path) -> dict:
    job = read_job(folder)
    keys = [(o, o.lstrip("+").partition("=")[0]) for o in job["overrides"]]
    return job | {
        "folder": folder,
        "sweep": folder.parent.parent.name,
        "settings": [override for override, key in keys if not is_execution_setting(key)],
        "runs": {stage: os.path.abspath(run) for stage, run in job.get("runs", {}).items()},
    }


def _last_run(job: dict) -> Path | None:
    return next(map(Path, reversed(job["runs"].values())), None)


def _latest(attempts: Sequence[dict]) -> list[dict]:
    """Keep the latest attempts: at most one per combination of settings, and per final run."""

    def age(job: dict) -> tuple[str, str]:
        return str(job.get("queued") or job.get("started") or ""), job["sweep"]

    by_settings = {
        frozenset(job["settings"]) or job["folder"]: job for job in sorted(attempts, key=age)
    }
    by_runs = {
        _last_run(job) or job["folder"]: job for job in sorted(by_settings.values(), key=age)
    }
    return list(by_runs.values())


def _first_unfinished(job: dict, runs: Mapping[str, dict]) -> tuple[str, dict]:
    for stage, folder in job["runs"].items():
        status = runs.get(folder, {"state": "new"})
        if status["state"] != "done":
            return stage, status
    return ("" if job["runs"] else STAGES[0]), {}


def _queue_facts(job: dict, queue: set[str] | None) -> dict[str, object]:
    """Status updates for a job that is (back) in a cluster's queue or lost; empty otherwise."""
    if job["scheduler_job"] is not None and not is_local(job):
        if queue is None:
            return {}
        if job["scheduler_job"] in queue:
            return {"state": "queued", "queued": job.get("finished") or job.get("queued")}
        reason = "it left the scheduler's queue without starting"
    else:
        # the folder name ends with the id of the process that starts the jobs
        process = int(job["folder"].parent.name.rpartition("_")[2])
        is_here = job.get("host", platform.node()) == platform.node()
        if not is_here or _exists(process):
            return {}
        reason = "the process that should have started it is gone"
    return {"state": "lost", "error": reason} if job["state"] == "queued" else {}


def _exists(process: int) -> bool:
    """Whether this machine has a process with this id."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's process
        pass
    return True


# --- the report of a sweep


def report(sweep_dir: Path, results: Path) -> str:
    """Summarise a sweep and describe each job that is neither done nor waiting on this machine."""
    jobs = read_jobs(sweep_dir)
    n_done = sum(job["state"] == "done" for job in jobs)
    n_waiting = sum(map(_is_waiting, jobs))
    waiting = f", {n_waiting} not started" if n_waiting else ""
    lines = [f"{n_done} of {len(jobs)} jobs done{waiting}; results: {results}/"]
    first_with: dict[str, int] = {}  # error -> number of the first job that has it
    distinct = distinct_overrides([job["overrides"] for job in jobs])
    for job, overrides in zip(jobs, distinct, strict=True):
        if job["state"] == "done" or _is_waiting(job):
            continue
        lines.append(f"  {' '.join([job['state'] + ': job', str(job['num']), *overrides])}:")
        why = reason(job)
        first = first_with.setdefault(why, job["num"])
        is_repeated = first != job["num"] and len(why) > LONG
        lines.append(textwrap.indent(f"same as job {first}" if is_repeated else why, "    "))
        folder = sweep_dir / str(job["num"])
        if "log" in job or (folder / LOG).is_file():
            lines.append(f"    log: {job.get('log', folder / LOG)}")
        elif job["state"] == "failed" and "traceback" in job:
            lines.append(f"    traceback: {folder / JOB}")
    found = {job["state"] for job in jobs}
    if found - {"done", "failed"}:
        lines.append("Finished work is kept: run the same command again to continue.")
    elif "failed" in found:
        lines.append(f"{FIX}.")
    return "\n".join(lines)


def _is_waiting(job: dict) -> bool:
    """Whether a queued job is waiting on this machine rather than in a cluster's queue."""
    return job["state"] == "queued" and not job.get("scheduler_job")


def read_jobs(sweep_dir: Path) -> list[dict]:
    """Read the status of each job in a sweep, in order of job number."""
    folders = sorted(sweep_dir.glob("[0-9]*"), key=lambda folder: int(folder.name))
    return [read_job(folder) for folder in folders]


def end_queued_jobs(sweep_dir: Path) -> None:
    """Mark waiting jobs as interrupted: the process that would have started them is ending."""
    for job in filter(_is_waiting, read_jobs(sweep_dir)):
        file = job_file(sweep_dir / str(job["num"]))
        file.write(state="interrupted", error="it had not started", finished=now())


def distinct_overrides(jobs: Collection[Sequence[str]]) -> list[list[str]]:
    """The overrides of each job that are not common to all jobs.

    Jobs without overrides do not affect which overrides are common.
    """
    known = [set(overrides) for overrides in jobs if overrides]
    shared = set.intersection(*known) if known else set()
    return [[override for override in overrides if override not in shared] for overrides in jobs]


def short_names(jobs: Collection[Sequence[str]]) -> list[str]:
    """Name each job by the overrides that distinguish it, with shortened keys.

    "featurizer.loss.beta" is shortened to "beta" unless another key has the same last part.
    """
    distinct = distinct_overrides(jobs)
    keys = {override.partition("=")[0] for own in distinct for override in own}
    short = {key: re.split("[.@]", key)[-1] for key in keys}
    n_keys = Counter(short.values())

    def shortened(override: str) -> str:
        key, equals, value = override.partition("=")
        return (short[key] if n_keys[short[key]] == 1 else key) + equals + value

    return [" ".join(map(shortened, own)) for own in distinct]


def format_stage(job: dict) -> str:
    """The stage that a job is running, with the epoch if in training; empty if none is running."""
    for stage, run in job.get("runs", {}).items():
        status = load(Path(run, RUN))
        if status["state"] == "running":
            return f"{stage} {format_progress(status)}".rstrip()
    return ""


def format_progress(run: dict) -> str:
    """A run's completed epochs, such as "epoch 3/10"; empty if the run does not train."""
    return f"epoch {run['epoch']}/{run['n_epochs']}" if "n_epochs" in run else ""


def reason(job: dict) -> str:
    """Why a job is not done."""
    if job["state"] == "queued":
        return " as ".join(["waiting in the queue", *filter(None, [job.get("scheduler_job")])])
    if job["state"] == "running":
        host, since = job.get("host", "another machine"), job.get("started", "an unknown time")
        return f"on {host}, since {since}"
    return job.get("error", "")
