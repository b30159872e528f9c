"""How a sweep ended, from what each job left in its folder; see `utils.traces`."""

import textwrap
from pathlib import Path

from utils.traces import FILE, read_trace

MEND = "Mend what the message says, then run it again"


def report(sweep_dir: Path, results: Path) -> str:
    """How the jobs of a sweep ended: a line in all, and a paragraph for each that is not done."""
    jobs = states(sweep_dir)
    n_done = sum(job["state"] == "done" for job in jobs)
    shared = set.intersection(*(set(job["overrides"]) for job in jobs)) if len(jobs) > 1 else set()
    lines = [f"{n_done} of {len(jobs)} jobs done ({sweep_dir}); results: {results}/"]
    for job in jobs:
        if job["state"] != "done":
            apart = [override for override in job["overrides"] if override not in shared]
            lines.append(f"  {' '.join([job['state'] + ': job', str(job['num']), *apart])}:")
            lines.append(textwrap.indent(reason(job), "    "))
            if "traceback" in job:
                lines.append(f"    traceback: {sweep_dir}/{job['num']}/{FILE}")
    found = {job["state"] for job in jobs}
    if found - {"done", "failed"}:
        lines.append("Finished work is kept: the same command again goes on from there.")
    elif "failed" in found:
        lines.append(f"{MEND}.")
    return "\n".join(lines)


def states(sweep_dir: Path) -> list[dict]:
    """What the jobs of a sweep left, in their order."""
    folders = sorted(sweep_dir.glob("[0-9]*"), key=lambda folder: int(folder.name))
    return [read_trace(folder) for folder in folders]


def reason(job: dict) -> str:
    """Why a job is not done."""
    if job["state"] == "queued":
        waits = job.get("scheduler_job")
        return f"waits for its turn, as {waits}" if waits else "waits for its turn"
    if job["state"] == "running":
        return f"on {job.get('host', 'another machine')}, since {job.get('started', 'a while')}"
    return job.get("error", "")
