"""Helpers for tests on a real Slurm: call scripts as users do; inspect runs, jobs and processes."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pandas as pd

from helpers.tiny import ROOT, call, untimed
from utils.runs.identity import STAGES

SCRIPTS = ROOT / "tests" / "helpers" / "slurm"
START, STOP = (str(SCRIPTS / f"{verb}_single_node.sh") for verb in ("start", "stop"))
POLL_SECONDS = 0.2


def copy_project(root: Path) -> Path:
    """Copy the code, configs and scripts; the Python environment is shared."""
    for name in ("bin", "conf", "lossyless", "utils"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("main.py", "aggregate.py"):
        shutil.copy(ROOT / name, root)
    (root / ".venv").symlink_to(sys.prefix)
    return root


def call_in(project: Path, *command: str, **options: object) -> subprocess.CompletedProcess:
    """Run a command in a copy of the project."""
    return call(*command, **{"cwd": project, "env": _environment(), "timeout": 3600} | options)


@contextlib.contextmanager
def started_in(project: Path, *command: str) -> Iterator[subprocess.Popen]:
    """Start a command in a copy of the project; stdout and stderr are one stream."""
    script = subprocess.Popen(
        command,
        cwd=project,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield script
    finally:
        if script.poll() is None:  # the test failed
            os.killpg(script.pid, signal.SIGTERM)
        script.wait()


def _environment() -> dict[str, str]:
    """The tests' environment, in which modules are imported from the working directory."""
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return {name: value for name, value in env.items() if name != "PYTHONPATH"}


def metrics_of_runs(project: Path) -> dict[str, dict[str, float]]:
    """Metrics of all runs, without times, keyed by the path of the run's table."""
    results = project / "results"
    tables = [path for stage in STAGES for path in results.rglob(f"run_*/results_{stage}.csv")]
    return {
        str(path.relative_to(results)): untimed(pd.read_csv(path).iloc[0].to_dict())
        for path in tables
    }


def statuses(project: Path) -> dict[str, dict]:
    """Status of each run, keyed by the path of its folder."""
    results = project / "results"
    files = sorted(results.rglob("run_*/status.json"))
    return {str(f.parent.relative_to(results)): json.loads(f.read_text()) for f in files}


def jobs(project: Path) -> list[dict]:
    """Status of the jobs of all sweeps, ordered by sweep and number."""
    files = project.glob("outputs/*/*/*/job.json")
    order = sorted(files, key=lambda file: (str(file.parent.parent), int(file.parent.name)))
    return [json.loads(file.read_text()) for file in order]


def cancel_jobs(project: Path) -> None:
    """Cancel the remaining jobs of a project's sweeps."""
    if job_ids := [job["scheduler_job"] for job in jobs(project)]:
        call("scancel", "--quiet", *job_ids)  # fails for jobs that have ended


def slurm(*command: str) -> str:
    """Output of a Slurm command."""
    done = call(*command)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def slurmd() -> int:
    """Process id of the node's Slurm daemon."""
    return int(Path("/run/slurm-single/slurmd.pid").read_text())


def processes_of(job_ids: Iterable[str]) -> list[int]:
    """Process ids of Slurm jobs on this machine, parents first."""
    raw_ids = {slurm("squeue", "-h", "-o", "%A", "-j", job_id).strip() for job_id in job_ids}
    rows = [line.split(maxsplit=2) for line in slurm("ps", "-eo", "pid=,ppid=,args=").splitlines()]
    found = []
    for pid, _, command in rows:  # a job's step is "slurmstepd: [87.0]"
        step = re.fullmatch(r"slurmstepd: \[(\d+)\..*", command)
        if step and step[1] in raw_ids:
            found.append(pid)
    for process in found:
        found += [pid for pid, parent, _ in rows if parent == process]
    return list(map(int, found))


def kill(processes: Iterable[int]) -> None:
    """Kill processes, unless they have already ended."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def wait_until(found: Callable[[], object], *, seconds: float, what: str) -> object:
    """Poll until a function returns a true value, and return that value."""
    end = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < end, f"{what}: not within {seconds} seconds"
        time.sleep(POLL_SECONDS)
    return answer
