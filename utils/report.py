"""How a sweep ended, from what each job left in its folder; see `utils.jobs`."""

import json
import textwrap
from pathlib import Path


def report(sweep_dir: Path, results: Path) -> str:
    """How the jobs of a sweep ended: a line in all, and a paragraph for each that is not done."""
    jobs = states(sweep_dir)
    n_done = sum(job["state"] == "done" for job in jobs)
    lines = [f"{n_done} of {len(jobs)} jobs done ({sweep_dir}); results: {results}/"]
    for job in jobs:
        if job["state"] != "done":
            settings = " ".join(job["overrides"])
            lines.append(f"  {job['state']}: job {job['num']} {settings}:")
            lines.append(textwrap.indent(job["error"], "    "))
    if n_done < len(jobs):
        lines.append("Finished work is kept: the same command again goes on from there.")
    return "\n".join(lines)


def states(sweep_dir: Path) -> list[dict]:
    """What the jobs of a sweep left, in their order."""
    folders = sorted(sweep_dir.glob("[0-9]*"), key=lambda folder: int(folder.name))
    return [_trace(folder) for folder in folders]


def _trace(folder: Path) -> dict:
    """What a job left in its folder; see `utils.jobs`."""
    file = folder / "job.json"
    if not file.is_file():
        no_trace = {"state": "failed", "error": f"before it began, see {folder} and above"}
        return no_trace | {"num": folder.name, "overrides": []}
    job = json.loads(file.read_text())
    if job["state"] == "running":
        job |= {"state": "interrupted", "error": "its process ended before the job did"}
    return job | {"error": str(job.get("error", ""))}
