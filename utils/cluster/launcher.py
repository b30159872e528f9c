"""Submission of a sweep's jobs with submitit, to a Slurm cluster or as processes of this machine.

The launcher waits until every job has ended. A job that leaves the queue without a result counts as
lost, so the launcher never hangs. Each job records its own status, see `utils.runs.status_file`.
"""

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
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
# Options of conf/slurm/ that are not submitit's: of all executors, and of the local one.
OWN_OPTIONS = {"name", "executor", "default_partition", "debug_partition"}
LOCAL_OPTIONS = {"array_parallelism"}
# Options of all of submitit's executors; it expects others with the executor's name as prefix.
SHARED_OPTIONS = {
    "timeout_min",
    "mem_gb",
    "nodes",
    "cpus_per_task",
    "gpus_per_node",
    "tasks_per_node",
    "stderr_to_stdout",
}
MAX_ARRAY = 1000  # jobs of one array: Slurm's default limit
POLL_SECONDS = 1.0  # between checks for results
QUEUE_SECONDS = 15.0  # between calls of squeue
# How long a job may be out of Slurm's queue without a result, since shared disks show files late;
# and how long local processes may take to end after Ctrl-C.
GRACE_SECONDS = 30.0


def check(options: DictConfig) -> None:
    """Raise `ConfigError` if jobs with these options of conf/slurm/ cannot be submitted."""
    if options.executor == "slurm":
        slurm_queries.check_commands(options.name)
    with tempfile.TemporaryDirectory() as folder:
        executor = make_executor(OmegaConf.to_container(options, resolve=True), Path(folder))
        if options.executor == "slurm":
            script = executor._executor._make_submission_file_text("true", uid="check")
            slurm_queries.check_submission(options.name, script)


def make_executor(options: Mapping[str, object], folder: Path) -> submitit.AutoExecutor:
    """submitit's executor with these options of conf/slurm/; it writes to `folder`/ID.

    Raises `ConfigError` for an option with an unknown name or a wrong type.
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
    return executor


def run_jobs(
    jobs: Sequence[SweepJob], options: Mapping[str, object], *, sweep_dir: Path
) -> list[JobReturn]:
    """Submit all jobs and wait for them; returns their results in the order of the jobs.

    After Ctrl-C, Slurm's jobs stay in the queue, and local processes are cancelled.

    Parameters
    ----------
    options : of conf/slurm/.
    sweep_dir : folder of the sweep; submitit writes to `.submitit/ID` in it.
    """
    return Sweep(jobs, make_executor(options, sweep_dir / ".submitit"), options).run()


class Sweep:
    """Jobs from submission to end.

    Slurm's jobs are all queued at the start and do not need this process. Local processes are
    started `array_parallelism` at a time.
    """

    def __init__(
        self,
        jobs: Sequence[SweepJob],
        executor: submitit.AutoExecutor,
        options: Mapping[str, object],
    ):
        self._jobs = jobs
        self._executor = executor
        self._is_slurm = options["executor"] == "slurm"
        self._n_at_once = options.get("array_parallelism")
        self._n_started = 0  # local jobs
        self._submitted: dict[int, submitit.Job] = {}  # unfinished jobs by index
        # jobs that have left the queue: when this was noticed, and their last known state
        self._left: dict[int, tuple[float, str]] = {}
        self._next_look = 0.0  # at Slurm's queue
        self._returns: dict[int, JobReturn] = {}

    def run(self) -> list[JobReturn]:
        """Submit the jobs and wait; returns their results in order."""
        try:
            if self._is_slurm:
                self._queue_arrays()
            else:
                self._announce_local()
            while len(self._returns) < len(self._jobs):
                self._look_at_queue()
                self._collect()
                if not self._is_slurm:
                    self._start_local()
                time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            self._abandon()
            raise
        return [self._returns[i] for i in range(len(self._jobs))]

    def _submit(self, indices: Sequence[int]) -> None:
        with _environment():
            submitted = self._executor.submit_array([self._jobs[i] for i in indices])
        self._submitted |= dict(zip(indices, submitted, strict=True))

    def _queue_arrays(self) -> None:
        indices = range(len(self._jobs))
        for start in range(0, len(indices), MAX_ARRAY):
            array = indices[start : start + MAX_ARRAY]
            try:
                self._submit(array)
            except FailedJobError as error:
                self._fail(indices[start:], error)
                break
            for i in array:  # now: this array runs even if the next submission is interrupted
                self._write_queued(i, self._submitted[i].job_id)
        if n := len(self._submitted):
            print(f"Queued {n} job{'s' * (n > 1)}: {', '.join(self._arrays())}", flush=True)

    def _fail(self, indices: Sequence[int], refusal: FailedJobError) -> None:
        """Record jobs that Slurm has refused as failed; the accepted ones continue."""
        reason = " ".join(str(refusal).split())
        error = JobError(f"{len(indices)} of {len(self._jobs)} jobs were not queued: {reason}")
        print(error, flush=True)
        for i in indices:
            self._write_queued(i, None, state="failed", finished=now(), error=str(error))
            self._returns[i] = self._jobs[i].failed(error)

    def _announce_local(self) -> None:
        for i in range(len(self._jobs)):
            self._write_queued(i, None)
        where = f"on this machine, {self._n_at_once} at a time"
        print(f"Queued {len(self._jobs)} job{'s' * (len(self._jobs) > 1)}: {where}", flush=True)

    def _start_local(self) -> None:
        end = min(self._n_started + self._n_at_once - len(self._submitted), len(self._jobs))
        if end > self._n_started:
            self._submit(range(self._n_started, end))
            self._n_started = end

    def _write_queued(self, index: int, scheduler_job: str | None, **facts: object) -> None:
        job = self._jobs[index]
        queue_job(job.folder, job.num, job.overrides, scheduler_job, **facts)

    def _look_at_queue(self) -> None:
        """Find the jobs that have left the queue."""
        now = time.monotonic()
        if not self._is_slurm:
            states = {i: job.get_info()["jobState"] for i, job in self._submitted.items()}
            left = {i: state for i, state in states.items() if state != "RUNNING"}
        elif now < self._next_look:
            return
        else:
            self._next_look = now + QUEUE_SECONDS
            try:
                queue = slurm_queries.states()
            except slurm_queries.SlurmUnavailableError as error:
                print(f"{error}; still waiting", flush=True)
                self._left.clear()
                return
            unknown = "cancelled before it started?"
            states = {i: queue.get(job.job_id, unknown) for i, job in self._submitted.items()}
            left = {i: s for i, s in states.items() if s == unknown or s in slurm_queries.ENDED}
        self._left = {i: self._left.get(i, (now, state)) for i, state in left.items()}

    def _collect(self) -> None:
        """Collect the results of jobs that have ended, including lost ones.

        An error ends a job only once it has left the queue: if a node fails or a job is preempted,
        its processes leave errors, Slurm requeues it, and it leaves another result.
        """
        for i, job in list(self._submitted.items()):
            result = _result(job, range(1))
            if i in self._left:
                result = result or self._lost(i, job)
            elif result is not None and result[0] == "error":
                result = None
            if result is not None:
                del self._submitted[i]
                self._returns[i] = self._returned(i, job, *result)

    def _lost(self, index: int, job: submitit.Job) -> tuple[str, object] | None:
        """Result of a job whose first process left none, after a grace period."""
        since, state = self._left[index]
        if self._is_slurm and time.monotonic() < since + GRACE_SECONDS:
            return None
        if (result := _result(job, range(job.num_tasks))) is not None:
            return result  # another process of the job has failed
        if not self._is_slurm:
            return "lost", f"process {job.job_id} ended without a result"
        end = slurm_queries.final_state(job.job_id) or state
        return "lost", f"Slurm job {job.job_id} left the queue without a result: {end}"

    def _returned(self, index: int, submitted: submitit.Job, outcome: str, value) -> JobReturn:
        """What Hydra gets of a job; records the end of a job that could not do so itself."""
        if outcome == "success":
            return value
        job, log = self._jobs[index], os.path.relpath(submitted.paths.stderr)
        file = job_file(job.folder)
        facts = {"log": log}
        last_line = str(value).strip().splitlines()[-1]  # of a traceback
        if outcome == "lost" or "started" not in file.read():
            state = "lost" if outcome == "lost" else "failed"
            facts |= {"state": state, "finished": now(), "error": last_line}
        file.write(**facts)
        reason = " ".join(file.read().get("error", last_line).split())
        return job.failed(JobError(f"job {job.num} ({submitted.job_id}): {reason}; log: {log}"))

    def _abandon(self) -> None:
        """Cancel local processes and wait for them; print how to cancel Slurm's jobs."""
        if not self._is_slurm:
            for job in self._submitted.values():
                job.cancel()
            deadline = time.monotonic() + GRACE_SECONDS
            while len(self._left) < len(self._submitted) and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
                self._look_at_queue()
        elif ids := sorted({job.job_id.split("_")[0] for job in self._submitted.values()}):
            print(
                f"\nThe jobs stay in the queue; to cancel them: scancel {' '.join(ids)}", flush=True
            )

    def _arrays(self) -> Iterator[str]:
        """The arrays of the jobs in Slurm's notation: "87_[0-11]"."""
        sizes: dict[str, int] = {}
        for job in self._submitted.values():
            array = job.job_id.partition("_")[0]
            sizes[array] = sizes.get(array, 0) + 1
        for array, n in sizes.items():
            yield f"{array}_[0-{n - 1}]" if n > 1 else array


def _result(job: submitit.Job, tasks: Sequence[int]) -> tuple[str, object] | None:
    """Result of the first of these processes of a job that left one; None if none has.

    ("success", JobReturn) or ("error", traceback).
    """
    for i in tasks:
        paths = job.task(i).paths
        with contextlib.suppress(OSError):  # refreshes the cache of shared disks, as in submitit
            paths.folder.chmod(paths.folder.stat().st_mode)
        if paths.result_pickle.exists():
            try:
                return pickle_load(paths.result_pickle)
            except Exception as error:  # unpickling may raise anything
                return "error", f"{paths.result_pickle} cannot be read: {error!r}"
    return None


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Add the project to the PYTHONPATH that jobs inherit, for any working directory."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *([before] if before else [])])
    # without the variables of the Slurm job that this process runs in, if any
    inside = submitit.helpers.clean_env() if "SLURM_JOB_ID" in os.environ else None
    try:
        with inside or contextlib.nullcontext():
            yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
