"""Submits a sweep's jobs with submitit, to Slurm or as local processes, and waits until they end.

A job that leaves the queue without a result counts as lost, so the launcher does not wait for it
forever. Each job records its own status; see `utils.runs.status_file`.
"""

import contextlib
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import submitit
from hydra.core.utils import JobReturn
from omegaconf import DictConfig, OmegaConf
from submitit.core.utils import FailedJobError, pickle_load

from utils.cluster import slurm_queries
from utils.cluster.sweep_job import JobError, SweepJob
from utils.configs.checks import ConfigError
from utils.runs.status_file import job_file, now, queue_job

ROOT = Path(__file__).resolve().parents[2]
# Options in conf/slurm/ that submitit lacks: first for all executors, then for the local one only.
OWN_OPTIONS = {"name", "executor", "default_partition", "debug_partition"}
LOCAL_OPTIONS = {"array_parallelism"}
# Options that submitit's executors share; all others need the executor's name as a prefix.
SHARED_OPTIONS = {
    "timeout_min",
    "mem_gb",
    "nodes",
    "cpus_per_task",
    "gpus_per_node",
    "tasks_per_node",
    "stderr_to_stdout",
}
POLL_SECONDS = {"local": 1.0, "slurm": 15.0}  # between checks of the jobs
# How long a job's result may be missing after the job has left Slurm's queue (files appear late on
# shared disks), and how long local processes may take to end after Ctrl-C.
GRACE_SECONDS = 30.0
GONE = "cancelled before it started?"


def check(options: DictConfig) -> None:
    """Raise `ConfigError` if jobs with these options from conf/slurm/ cannot be submitted."""
    with tempfile.TemporaryDirectory() as folder:
        executor = make_executor(OmegaConf.to_container(options, resolve=True), Path(folder))
        if options.executor == "slurm":
            script = executor._executor._make_submission_file_text("true", uid="check")
            slurm_queries.check_submission(options.name, script)


def make_executor(options: Mapping[str, object], folder: Path) -> submitit.AutoExecutor:
    """Create a submitit executor that writes to `folder`/<job id>, with options from conf/slurm/.

    Raises `ConfigError` if an option is unknown or has the wrong type, or if srun is missing.
    """
    kind = options["executor"]
    ours = OWN_OPTIONS | (LOCAL_OPTIONS if kind == "local" else set())
    theirs = {key: value for key, value in options.items() if key not in ours}
    of_init = {"max_num_timeout"} & theirs.keys()
    first = {f"{kind}_{key}": theirs.pop(key) for key in of_init}
    try:
        executor = submitit.AutoExecutor(folder=folder / "%j", cluster=kind, **first)
        executor.update_parameters(
            **{k if k in SHARED_OPTIONS else f"{kind}_{k}": v for k, v in theirs.items()}
        )
    except (AssertionError, NameError, ValueError) as error:  # all raised by submitit
        reason = str(error).splitlines()[0]
        raise ConfigError(f"slurm={options['name']}: submitit says: {reason}") from error
    except RuntimeError as error:
        raise ConfigError(
            f"slurm={options['name']}: this machine has no srun: submit from a login node of the "
            "cluster, or run on this machine with slurm=none or slurm=local"
        ) from error
    return executor


def run_jobs(
    jobs: Sequence[SweepJob], options: Mapping[str, object], *, sweep_dir: Path
) -> list[JobReturn]:
    """Submit all jobs, wait for them, and return their results in the same order.

    On Slurm, the jobs form one array. On this machine, at most `array_parallelism` processes run at
    a time. After Ctrl-C, Slurm jobs stay in the queue, and local processes are cancelled.
    submitit writes to `.submitit/<job id>` in the sweep's folder. Raises JobError if Slurm rejects
    the jobs.
    """
    executor = make_executor(options, sweep_dir / ".submitit")
    is_slurm = options["executor"] == "slurm"
    n_at_once = len(jobs) if is_slurm else options["array_parallelism"]
    submitted = _queue_array(executor, jobs) if is_slurm else _queue_processes(jobs, n_at_once)
    returns: dict[int, JobReturn] = {}
    since: dict[int, float] = {}  # when each job was first seen to have ended
    try:
        while len(returns) < len(jobs):
            running = {i: job for i, job in enumerate(submitted) if i not in returns}
            if new := jobs[len(submitted) :][: n_at_once - len(running)]:
                submitted += _submit(executor, new)
            ended = _ended_in_queue(running) if is_slurm else _ended_processes(running)
            moment = time.monotonic()
            since = {i: since.get(i, moment) for i in ended}
            for i, state in ended.items():
                result = _result(running[i])
                if result or not is_slurm or moment > since[i] + GRACE_SECONDS:
                    returns[i] = _returned(jobs[i], running[i], result, state)
            time.sleep(POLL_SECONDS[options["executor"]])
    except KeyboardInterrupt:
        _abandon([job for i, job in enumerate(submitted) if i not in returns], is_slurm)
        raise
    return [returns[i] for i in range(len(jobs))]


def _queue_array(executor: submitit.AutoExecutor, jobs: Sequence[SweepJob]) -> list[submitit.Job]:
    try:
        submitted = _submit(executor, jobs)
    except FailedJobError as error:
        raise JobError(f"the jobs were not queued: {' '.join(str(error).split())}") from error
    for job, one in zip(jobs, submitted, strict=True):
        queue_job(job.folder, job.num, job.overrides, one.job_id)
    array = submitted[0].job_id.partition("_")[0]
    _announce(len(jobs), array if len(jobs) == 1 else f"{array}_[0-{len(jobs) - 1}]")
    return submitted


def _queue_processes(jobs: Sequence[SweepJob], n_at_once: int) -> list[submitit.Job]:
    for job in jobs:
        queue_job(job.folder, job.num, job.overrides, None)
    _announce(len(jobs), f"on this machine, {n_at_once} at a time")
    return []  # none has started yet


def _announce(n: int, where: str) -> None:
    print(f"Queued {n} job{'s' * (n > 1)}: {where}", flush=True)  # bin/utils.sh waits for this


def _submit(executor: submitit.AutoExecutor, jobs: Sequence[SweepJob]) -> list[submitit.Job]:
    """Submit jobs so that they find the project's modules from any working directory."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with contextlib.ExitStack() as stack:
        stack.enter_context(submitit.helpers.environment_variables(PYTHONPATH=path))
        if "SLURM_JOB_ID" in os.environ:  # this process itself runs in a Slurm job
            stack.enter_context(submitit.helpers.clean_env())
        return executor.submit_array(jobs)


def _ended_processes(running: Mapping[int, submitit.Job]) -> dict[int, str]:
    return {i: "its process ended" for i, job in running.items() if job.done()}


def _ended_in_queue(running: Mapping[int, submitit.Job]) -> dict[int, str]:
    """The last state of each job that has left Slurm's queue and will not run again.

    A job that is preempted, or whose node fails, is requeued: it has not ended, even if it has
    written an error as its result.
    """
    try:
        queue = slurm_queries.states()
    except slurm_queries.SlurmUnavailableError as error:
        print(f"{error}; still waiting", flush=True)
        return {}
    states = {i: queue.get(job.job_id, GONE) for i, job in running.items()}
    return {i: s for i, s in states.items() if s == GONE or s in slurm_queries.ENDED}


def _result(job: submitit.Job) -> tuple[str, object] | None:
    """The result of the first of a job's processes that has written one; None if none has.

    The result is ("success", JobReturn) or ("error", traceback or message).
    """
    for task in range(job.num_tasks):
        paths = job.task(task).paths
        with contextlib.suppress(OSError):  # refreshes shared disks' caches, as submitit does
            paths.folder.chmod(paths.folder.stat().st_mode)
        if paths.result_pickle.exists():
            try:
                return pickle_load(paths.result_pickle)
            except Exception as error:  # unpickling may raise anything
                return "error", f"{paths.result_pickle} cannot be read: {error!r}"
    return None


def _returned(
    job: SweepJob, submitted: submitit.Job, result: tuple[str, object] | None, state: str
) -> JobReturn:
    """A job's result for Hydra; if the job could not record its own end, this function does so."""
    outcome, value = result or ("lost", f"no result from job {submitted.job_id}: {state}")
    if outcome == "success":
        return value
    log = os.path.relpath(submitted.paths.stderr)
    file, facts = job_file(job.folder), {"log": log}
    last_line = str(value).strip().splitlines()[-1]  # a traceback ends with the error message
    if outcome == "lost" or "started" not in file.read():
        state = "lost" if outcome == "lost" else "failed"
        facts |= {"state": state, "finished": now(), "error": last_line}
    file.write(**facts)
    reason = " ".join(file.read().get("error", last_line).split())
    return job.failed(JobError(f"job {job.num} ({submitted.job_id}): {reason}; log: {log}"))


def _abandon(jobs: Sequence[submitit.Job], is_slurm: bool) -> None:
    """Cancel local processes and wait for them; print how to cancel Slurm jobs."""
    if is_slurm:
        ids = sorted({job.job_id.split("_")[0] for job in jobs})
        print(f"\nThe jobs stay in the queue; cancel them with scancel {' '.join(ids)}", flush=True)
        return
    for job in jobs:
        job.cancel()
    deadline = time.monotonic() + GRACE_SECONDS
    while not all(job.done() for job in jobs) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS["local"])
