"""Calls Slurm commands to check whether a job would be accepted and to query job states."""

import os
import subprocess
import tempfile

from utils.configs.checks import ConfigError

TIMEOUT = 60  # seconds; busy controllers are slow
# States of jobs that will not run again; requeued jobs are PENDING.
ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "TIMEOUT",
}
# What to do about a rejected job, keyed by words in Slurm's message; the first match counts.
HINTS = {
    "contact": "is the cluster up? Try sinfo",
    "partition combination": "slurm.account=NAME, or null for your default",
    "partition": "sinfo lists the partitions: slurm.partition=NAME",
    "account": "slurm.account=NAME, or null for your default",
    "qos": "slurm.qos=NAME, or null for your default",
    "time limit": "request less time: -t MINUTES",
    "": "request other resources: slurm.mem_gb, slurm.cpus_per_task, slurm.gpus_per_node, "
    "trainer.devices, trainer.num_nodes",
}


UNAVAILABLE = "Requested node configuration is not available"


class SlurmUnavailableError(RuntimeError):
    """A Slurm command failed or timed out; retrying it later may help."""


def check_submission(name: str, script: str) -> None:
    """Raise `ConfigError` if Slurm would reject a batch script or does not answer.

    The message contains `name`, the option selected from conf/slurm/.
    """
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".sh") as file:
        file.write(script)
        file.flush()
        try:
            done = _call("sbatch", "--test-only", file.name)
        except SlurmUnavailableError as error:
            raise ConfigError(f"slurm={name}: {error}; is the cluster up? Try sinfo") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["sbatch --test-only failed"]
        said = "; ".join(line.removeprefix("sbatch: error: ").strip() for line in lines)
        if UNAVAILABLE in said:  # sbatch may queue the job until the nodes return
            print(f"slurm={name}: {said}: nodes may be down, drained (see sinfo) or too small")
            return
        hint = next(hint for word, hint in HINTS.items() if word in said.lower())
        raise ConfigError(f"slurm={name}: Slurm would reject the job: {said}; {hint}")


def states(*, is_of_all_users: bool = False) -> dict[str, str]:
    """State of each job that Slurm still remembers: {"87_3": "RUNNING", ...}.

    Raises `SlurmUnavailableError` if squeue fails.
    """
    whose = [] if is_of_all_users else [f"--user={os.getuid()}"]
    done = _call("squeue", "--noheader", "--array", "--states=all", "--format=%i|%T", *whose)
    if done.returncode != 0:
        raise SlurmUnavailableError(f"squeue: {done.stderr.strip()}")
    return dict(line.strip().split("|") for line in done.stdout.splitlines() if line.strip())


def queued_ids() -> set[str] | None:
    """Ids of all users' pending and running jobs; None if Slurm does not answer."""
    try:
        found = states(is_of_all_users=True)
    except SlurmUnavailableError:
        return None
    return {job_id for job_id, state in found.items() if state not in ENDED}


def _call(*command: str) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise SlurmUnavailableError(f"{command[0]} did not answer within {TIMEOUT} s") from error
    except OSError as error:
        raise SlurmUnavailableError(f"{command[0]} cannot be called: {error.strerror}") from error
