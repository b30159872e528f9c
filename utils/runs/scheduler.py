"""The scheduler's job that this process belongs to, if submitit started it, on Slurm or locally."""

import os


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
