"""The scheduler's job that this process belongs to, if submitit started it, on Slurm or locally."""

import os
import subprocess


def job_id() -> str | None:
    """Its id, such as "87_3"; None outside of a scheduler."""
    if "SUBMITIT_EXECUTOR" not in os.environ:
        return None
    from submitit import JobEnvironment  # whose import all other processes spare

    return JobEnvironment().job_id


def rank() -> int:
    """Which of the job's tasks this process is; 0 outside of a scheduler."""
    if "SUBMITIT_EXECUTOR" not in os.environ:
        return 0
    from submitit import JobEnvironment

    return JobEnvironment().global_rank


def n_restarts() -> int:
    """How often Slurm has put the job back into the queue and started it again."""
    return int(os.environ.get("SLURM_RESTART_COUNT", 0))


def in_slurm_queue(seconds: float = 20.0) -> set[str] | None:
    """The ids of all jobs that wait or run on the cluster; None where it does not say.

    Parameters
    ----------
    seconds : to wait for the answer at most.
    """
    command = ("squeue", "--noheader", "--array", "--format=%F %K %i")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    ids = set()
    for array, task, own in map(str.split, done.stdout.splitlines()):
        ids |= {own, f"{array}_{task}"}
    return ids
