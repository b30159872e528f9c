"""Slurm's commands: check whether a job would be accepted, query the states of jobs."""

import getpass
import os
import shutil
import subprocess
import tempfile

from utils.configs.checks import ConfigError

COMMANDS = ("sbatch", "srun", "squeue", "scontrol")
TIMEOUT = 60  # seconds; busy controllers are slow
# States of jobs that will not run again; a requeued job is pending.
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


class SlurmUnavailableError(RuntimeError):
    """A command of Slurm failed or timed out; it may work later."""


def check_commands(name: str) -> None:
    """Raise `ConfigError` if this machine cannot submit jobs.

    Parameters
    ----------
    name : the option of conf/slurm/, for the message.
    """
    if missing := [command for command in COMMANDS if shutil.which(command) is None]:
        raise ConfigError(
            f"slurm={name}: {', '.join(missing)} not found: submit from a login node of the "
            "cluster, or run on this machine with slurm=none or slurm=local"
        )


def check_submission(name: str, script: str) -> None:
    """Raise `ConfigError` if Slurm would reject a job, by `sbatch --test-only`.

    Parameters
    ----------
    name : the option of conf/slurm/, for the message.
    script : the batch file.
    """
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".sh") as file:
        file.write(script)
        file.flush()
        try:
            done = _call("sbatch", "--test-only", file.name)
        except SlurmUnavailableError as error:
            raise ConfigError(f"slurm={name}: {error}; is the cluster up? Try sinfo") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["sbatch --test-only fails"]
        said = "; ".join(line.removeprefix("sbatch: error: ").strip() for line in lines)
        raise ConfigError(f"slurm={name}: Slurm rejects such a job: {said}{_hint(said)}")


def states(*, is_of_all_users: bool = False) -> dict[str, str]:
    """State of each job that Slurm still knows: {"87_3": "RUNNING", ...}.

    Parameters
    ----------
    is_of_all_users : whether to include the jobs of other users.

    Raises
    ------
    SlurmUnavailableError
        If squeue fails.
    """
    whose = [] if is_of_all_users else [f"--user={os.getuid()}"]
    done = _call("squeue", "--noheader", "--array", "--states=all", "--format=%i|%T", *whose)
    if done.returncode != 0:
        raise SlurmUnavailableError(f"squeue: {done.stderr.strip()}")
    return dict(line.strip().split("|") for line in done.stdout.splitlines() if line.strip())


def queued_ids() -> set[str] | None:
    """Ids of the jobs of all users that wait or run; None if Slurm does not answer."""
    try:
        found = states(is_of_all_users=True)
    except SlurmUnavailableError:
        return None
    return {job_id for job_id, state in found.items() if state not in ENDED}


def final_state(job_id: str) -> str | None:
    """Last state of a job in Slurm's accounting ("CANCELLED by 0"); None if it is unknown."""
    try:
        done = _call("sacct", "-X", "-n", "-P", "-j", job_id, "-o", "State")
    except SlurmUnavailableError:
        return None
    lines = done.stdout.split("\n") if done.returncode == 0 else []
    return lines[-2].strip() if len(lines) > 1 else None


def _hint(said: str) -> str:
    """Valid values of the setting that Slurm rejects, as far as it lists them."""
    lowered = said.lower()
    if "contact" in lowered:
        return "; is the cluster up? Try sinfo"
    if "partition" in lowered and "account" not in lowered:
        names = ", ".join(sorted(set(_listed("sinfo", "-h", "-o", "%R"))))
        return f"; its partitions are {names or 'unknown'}: slurm.partition=NAME"
    if "account" in lowered:
        user = f"user={getpass.getuser()}"
        names = _listed("sacctmgr", "-n", "-P", "show", "assoc", user, "format=account")
        listed = f"; yours are {', '.join(sorted(set(names)))}" if names else ""
        return f"{listed}: slurm.account=NAME, or null for your default"
    if "qos" in lowered:
        names = _listed("sacctmgr", "-n", "-P", "show", "qos", "format=name")
        listed = f"; its QOS are {', '.join(sorted(set(names)))}" if names else ""
        return f"{listed}: slurm.qos=NAME, or null for your default"
    if "time limit" in lowered:
        return ": request less time, -t MINUTES"
    return (
        ": request other resources, see slurm.mem_gb, slurm.cpus_per_task, "
        "slurm.gpus_per_node, trainer.devices, trainer.num_nodes"
    )


def _listed(*command: str) -> list[str]:
    """Words of a command's output; none if it fails, since they are only hints."""
    try:
        done = _call(*command)
    except SlurmUnavailableError:
        return []
    return done.stdout.split() if done.returncode == 0 else []


def _call(*command: str) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise SlurmUnavailableError(f"{command[0]} did not answer in {TIMEOUT} s") from error
    except OSError as error:
        raise SlurmUnavailableError(f"{command[0]} cannot be called: {error.strerror}") from error
