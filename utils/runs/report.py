"""How a sweep ended, from what each job left in its folder; see `utils.runs.job_status`."""

import textwrap
from pathlib import Path

from utils.runs.job_status import FILE, read_trace
from utils.runs.run import STATUS
from utils.runs.status_file import load_state

LOG = "job.log"  # in the folder of a job: what it prints, unless a scheduler keeps that
LONG = 100  # characters of a reason that is not repeated
MEND = "Fix the error, then run it again"


def report(sweep_dir: Path, results: Path) -> str:
    """How the jobs of a sweep ended: a line in all, and a paragraph for each that is not done."""
    jobs = states(sweep_dir)
    n_done = sum(job["state"] == "done" for job in jobs)
    lines = [f"{n_done} of {len(jobs)} jobs done; results: {results}/"]
    told: dict[str, int] = {}  # the first job with each reason
    for job, apart in zip(jobs, overrides_apart(jobs), strict=True):
        if job["state"] != "done":
            lines.append(f"  {' '.join([job['state'] + ': job', str(job['num']), *apart])}:")
            why = reason(job)
            first = told.setdefault(why, job["num"])
            is_repeated = first != job["num"] and len(why) > LONG
            lines.append(textwrap.indent(f"as job {first}" if is_repeated else why, "    "))
            folder = sweep_dir / str(job["num"])
            if "log" in job or (folder / LOG).is_file():
                lines.append(f"    log: {job.get('log', folder / LOG)}")
            elif "traceback" in job:
                lines.append(f"    traceback: {folder / FILE}")
    found = {job["state"] for job in jobs}
    if found - {"done", "failed"}:
        lines.append("Finished work is kept: run the same command again to continue.")
    elif "failed" in found:
        lines.append(f"{MEND}.")
    return "\n".join(lines)


def states(sweep_dir: Path) -> list[dict]:
    """What the jobs of a sweep left, in their order."""
    folders = sorted(sweep_dir.glob("[0-9]*"), key=lambda folder: int(folder.name))
    return [read_trace(folder) for folder in folders]


def overrides_apart(jobs: list[dict]) -> list[list[str]]:
    """The overrides of each job that not all jobs have."""
    known = [set(job["overrides"]) for job in jobs if job["overrides"]]
    shared = set.intersection(*known) if known else set()
    return [[override for override in job["overrides"] if override not in shared] for job in jobs]


def stage_of(job: dict) -> str:
    """The stage that a job is at, with its epoch if it is training."""
    for stage, run in job.get("runs", {}).items():
        status = load_state(Path(run, STATUS)) or {"state": "new"}
        if status["state"] == "running":
            return f"{stage} {progress_of(status)}".rstrip()
    return ""


def progress_of(status: dict) -> str:
    """How far a run has come."""
    return f"epoch {status['epoch']}/{status['n_epochs']}" if "n_epochs" in status else ""


def reason(job: dict) -> str:
    """Why a job is not done."""
    if job["state"] == "queued":
        waits = job.get("scheduler_job")
        return f"waits for its turn, as {waits}" if waits else "waits for its turn"
    if job["state"] == "running":
        return f"on {job.get('host', 'another machine')}, since {job.get('started', 'a while')}"
    return job.get("error", "")
