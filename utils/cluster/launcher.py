"""Jobs of a sweep as jobs of a cluster, or as processes of this machine, submitted with submitit.

The caller waits until every job has ended, and never for ever: a job that left the queue without a
result has failed. What each job leaves meanwhile is its trace, see `utils.runs.job_status`.
"""

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import submitit
from hydra import version
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
from omegaconf import DictConfig, OmegaConf, open_dict
from submitit.core.utils import FailedJobError, pickle_load

from utils.cluster import slurm
from utils.configs import resolvers
from utils.configs.composing import ConfigError
from utils.runs.job_status import FILE, Trace, read_trace
from utils.runs.status_file import now, write_state

ROOT = Path(__file__).resolve().parents[2]
# Options of conf/slurm/ that are not submitit's; for all executors, and for processes here.
OWN_OPTIONS = {"name", "executor", "default_partition", "debug_partition"}
LOCAL_OPTIONS = {"array_parallelism"}
# Those that submitit takes as they are; others with the name of the executor before them.
GENERIC_OPTIONS = {field.name for field in fields(BaseQueueConf)}
MAX_ARRAY = 1000  # jobs of one array: what Slurm allows unless it is told otherwise
POLL_SECONDS = 1.0  # between two looks for results
QUEUE_SECONDS = 15.0  # between two questions to the queue
# How long a job may be unknown to the queue without a result: shared disks show files late.
GRACE_SECONDS = 30.0


class JobError(RuntimeError):
    """A job failed or was lost."""


@dataclass(frozen=True)
class SweepJob:
    """A job with its config composed: what submitit pickles, and calls where the job runs."""

    num: int
    config: DictConfig
    task: TaskFunction
    context: HydraContext
    version_base: str  # of Hydra's behaviour, which is no part of a config

    @property
    def folder(self) -> Path:
        """The job's own folder in that of the sweep."""
        return Path(self.config.hydra.sweep.dir, str(self.config.hydra.sweep.subdir))

    @property
    def overrides(self) -> list[str]:
        return list(self.config.hydra.overrides.task)

    def __call__(self) -> JobReturn:
        """Run the task; raises what it raises, so that the scheduler sees the failure too."""
        version.setbase(self.version_base)
        setup_globals()
        resolvers.register()
        JobRuntime.instance().set("name", self.config.hydra.job.name)
        config = self.config.copy()  # the original is pickled again if the job is requeued
        with open_dict(config.hydra.job):
            config.hydra.job.id = submitit.JobEnvironment().job_id
        done = run_job(
            hydra_context=self.context,
            task_function=self.task,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        if done.status != JobStatus.COMPLETED:
            raise done._return_value
        return done

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """What is submitted again after a preemption: the same, which finds its checkpoints."""
        return submitit.helpers.DelayedSubmission(self)

    def failed(self, error: JobError) -> JobReturn:
        """What Hydra is told of a job that did not come back."""
        config = self.config.copy()
        with open_dict(config):
            hydra_config = OmegaConf.create({"hydra": config.pop("hydra")})
        done = JobReturn(overrides=self.overrides, cfg=config, hydra_cfg=hydra_config)
        done.status, done.return_value = JobStatus.FAILED, error
        return done


def compose_jobs(
    job_overrides: Sequence[Sequence[str]],
    first_num: int,
    *,
    context: HydraContext,
    task: TaskFunction,
    config: DictConfig,
) -> list[SweepJob]:
    """The jobs of a sweep, numbered from `first_num`, with their configs as they are now."""
    jobs = []
    for num, overrides in enumerate(job_overrides, start=first_num):
        composed = context.config_loader.load_sweep_config(config, list(overrides))
        with open_dict(composed.hydra.job):
            composed.hydra.job.num = num
        jobs.append(SweepJob(num, composed, task, context, str(version.getbase())))
    return jobs


def check(options: DictConfig) -> None:
    """Raise `ConfigError` if jobs with these options of conf/slurm/ could not be submitted."""
    if options.executor == "slurm":
        slurm.check_commands(options.name)
    with tempfile.TemporaryDirectory() as folder:
        executor = make_executor(OmegaConf.to_container(options, resolve=True), Path(folder))
        if options.executor == "slurm":
            script = executor._executor._make_submission_file_text("true", uid="check")
            slurm.check_submission(options.name, script)


def make_executor(options: Mapping[str, object], folder: Path) -> submitit.AutoExecutor:
    """What submits jobs with these options of conf/slurm/; files of the jobs go to `folder`/ID.

    Raises `ConfigError` for an option that submitit does not know, or of another type.
    """
    kind = options["executor"]
    ours = OWN_OPTIONS | (LOCAL_OPTIONS if kind == "local" else set())
    theirs = {key: value for key, value in options.items() if key not in ours}
    of_init = {"max_num_timeout"} & theirs.keys()
    first = {f"{kind}_{key}": theirs.pop(key) for key in of_init}
    try:
        executor = submitit.AutoExecutor(folder=folder / "%j", cluster=kind, **first)
        executor.update_parameters(
            **{k if k in GENERIC_OPTIONS else f"{kind}_{k}": v for k, v in theirs.items()}
        )
    except (AssertionError, NameError, ValueError) as error:  # as submitit says what is wrong
        reason = str(error).splitlines()[0]
        raise ConfigError(f"slurm={options['name']}: submitit says: {reason}") from error
    return executor


def run_jobs(
    jobs: Sequence[SweepJob], options: Mapping[str, object], *, sweep_dir: Path
) -> list[JobReturn]:
    """Submit all jobs, wait until each has ended, and return how, in their order.

    Parameters
    ----------
    options : of conf/slurm/.
    sweep_dir : folder of the sweep; submitit's files go to `.submitit/ID` in it.
    """
    executor = make_executor(options, sweep_dir / ".submitit")
    if options["executor"] == "slurm":
        return SlurmJobs(jobs, executor).wait()
    return LocalJobs(jobs, executor, at_once=options["array_parallelism"]).wait()


class _Jobs:
    """The jobs of a sweep from submission to their ends."""

    def __init__(self, jobs: Sequence[SweepJob], executor: submitit.AutoExecutor):
        self._jobs = jobs
        self._executor = executor
        self._submitted: dict[int, submitit.Job] = {}  # and not ended, by place in `jobs`
        self._returns: dict[int, JobReturn] = {}

    def wait(self) -> list[JobReturn]:
        """Wait until all jobs have ended; how they did, in their order."""
        try:
            self._begin()
            while len(self._returns) < len(self._jobs):
                self._collect()
                time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            self._leave()
            raise
        return [self._returns[i] for i in range(len(self._jobs))]

    def _submit(self, places: Sequence[int]) -> None:
        with _environment():
            submitted = self._executor.submit_array([self._jobs[i] for i in places])
        self._submitted |= dict(zip(places, submitted, strict=True))

    def _collect(self) -> None:
        """Take the results that are there, and give up those that will not come."""
        lost = self._lost()
        for i, job in list(self._submitted.items()):
            result = _result(job, range(1))
            if result is None and i in lost:  # of several processes, another one may have failed
                result = _result(job, range(job.num_tasks)) or ("lost", lost[i])
            if result is not None and (result[0] != "error" or self._is_over(i)):
                del self._submitted[i]
                self._returns[i] = self._returned(i, job, *result)

    def _returned(self, place: int, submitted: submitit.Job, outcome: str, value) -> JobReturn:
        if outcome == "success":
            return value
        job, log = self._jobs[place], os.path.relpath(submitted.paths.stderr)
        trace = read_trace(job.folder) | {"log": log}
        if outcome == "lost":
            trace |= {"state": "lost", "finished": now(), "error": str(value)}
        last_line = str(value).strip().splitlines()[-1]  # of a traceback
        if outcome == "error" and "started" not in trace:
            trace |= {"state": "failed", "finished": now(), "error": last_line}
        write_state(job.folder / FILE, trace)
        reason = " ".join(trace.get("error", last_line).split())
        return job.failed(JobError(f"job {job.num} ({submitted.job_id}): {reason}; log: {log}"))

    def _begin(self) -> None:
        """Queue the jobs."""
        raise NotImplementedError

    def _lost(self) -> dict[int, str]:
        """Those that are over, whether they left a result or not, with their last known state."""
        raise NotImplementedError

    def _is_over(self, place: int) -> bool:
        """Whether the error that a job left is its end."""
        raise NotImplementedError

    def _leave(self) -> None:
        """What is to be done, or said, when nobody waits for the jobs any more."""
        raise NotImplementedError


class SlurmJobs(_Jobs):
    """Jobs of a cluster: they are all queued at once, and do not need who waits for them."""

    def __init__(self, jobs: Sequence[SweepJob], executor: submitit.AutoExecutor):
        super().__init__(jobs, executor)
        self._asked = 0.0
        self._gone: dict[int, tuple[float, str]] = {}  # since when, and how

    def _begin(self) -> None:
        places = range(len(self._jobs))
        for start in range(0, len(places), MAX_ARRAY):
            array = places[start : start + MAX_ARRAY]
            try:
                self._submit(array)
            except FailedJobError as error:
                self._give_up(places[start:], error)
                break
            for i in array:  # at once, for the array runs whatever becomes of the next one
                self._trace(i).queue(self._submitted[i].job_id)
        if n := len(self._submitted):
            print(f"Queued {n} job{'s' * (n > 1)}: {', '.join(self._arrays())}", flush=True)

    def _give_up(self, places: Sequence[int], refusal: FailedJobError) -> None:
        """Let jobs fail that Slurm does not take; those that it took go on."""
        said = " ".join(str(refusal).split())
        error = JobError(f"{len(places)} of {len(self._jobs)} jobs were not queued: {said}")
        print(error, flush=True)
        for i in places:
            self._jobs[i].folder.mkdir(parents=True, exist_ok=True)
            self._trace(i).note(state="failed", finished=now(), error=str(error))
            self._returns[i] = self._jobs[i].failed(error)

    def _trace(self, place: int) -> Trace:
        job = self._jobs[place]
        return Trace(job.folder, job.num, job.overrides)

    def _lost(self) -> dict[int, str]:
        if time.monotonic() - self._asked > QUEUE_SECONDS:
            self._ask()
        over = time.monotonic() - GRACE_SECONDS
        return {
            i: f"Slurm job {job.job_id} left the queue without a result: {self._end(i, job)}"
            for i, job in self._submitted.items()
            if i in self._gone and self._gone[i][0] < over
        }

    def _ask(self) -> None:
        """Ask the queue which jobs are gone, and since when."""
        self._asked = time.monotonic()
        try:
            states = slurm.states()
        except slurm.SlurmUnavailableError as error:
            print(f"{error}; waits on", flush=True)
            self._gone.clear()
            return
        for i, job in self._submitted.items():
            state = states.get(job.job_id, "cancelled before it began?")
            if job.job_id in states and state not in slurm.ENDED:
                self._gone.pop(i, None)
            else:
                since, _ = self._gone.get(i, (self._asked, state))
                self._gone[i] = (since, state)

    def _is_over(self, place: int) -> bool:
        # a node that fails takes tasks with it, and the others may leave errors of that; such a job
        # is requeued, and leaves another result
        return place in self._gone

    def _end(self, place: int, job: submitit.Job) -> str:
        return slurm.final_state(job.job_id) or self._gone[place][1]

    def _leave(self) -> None:
        ids = " ".join(sorted({job.job_id.split("_")[0] for job in self._submitted.values()}))
        if ids:
            print(f"\nThe jobs stay in the queue; to cancel them: scancel {ids}", flush=True)

    def _arrays(self) -> Iterator[str]:
        """The arrays of the jobs, as Slurm writes them: "87_[0-11]"."""
        sizes: dict[str, int] = {}
        for job in self._submitted.values():
            array = job.job_id.partition("_")[0]
            sizes[array] = sizes.get(array, 0) + 1
        for array, n in sizes.items():
            yield f"{array}_[0-{n - 1}]" if n > 1 else array


class LocalJobs(_Jobs):
    """Processes of this machine: some at a time, which go on if who waits for them is killed.

    Parameters
    ----------
    at_once : how many of the jobs run at a time.
    """

    def __init__(self, jobs: Sequence[SweepJob], executor: submitit.AutoExecutor, *, at_once: int):
        super().__init__(jobs, executor)
        self._at_once = at_once
        self._n_begun = 0

    def _begin(self) -> None:
        for job in self._jobs:
            Trace(job.folder, job.num, job.overrides).queue(None)
        n = len(self._jobs)
        print(
            f"Queued {n} job{'s' * (n > 1)}: on this machine, {self._at_once} at a time", flush=True
        )

    def _collect(self) -> None:
        super()._collect()
        n = min(self._at_once - len(self._submitted), len(self._jobs) - self._n_begun)
        if n > 0:
            self._submit(range(self._n_begun, self._n_begun + n))
            self._n_begun += n

    def _lost(self) -> dict[int, str]:
        states = {i: job.get_info()["jobState"] for i, job in self._submitted.items()}
        return {
            i: f"process {self._submitted[i].job_id} ended without a result"
            for i, state in states.items()
            if state != "RUNNING"
        }

    def _is_over(self, place: int) -> bool:
        return True  # nothing starts it again

    def _leave(self) -> None:
        for job in self._submitted.values():
            job.cancel()


def _result(job: submitit.Job, tasks: Sequence[int]) -> tuple[str, object] | None:
    """What the first of a job's processes that left a result says: ("success", JobReturn) or
    ("error", traceback); None if there is none yet."""
    for i in tasks:
        paths = job.task(i).paths
        with contextlib.suppress(OSError):  # makes shared disks look anew, as submitit does it
            paths.folder.chmod(paths.folder.stat().st_mode)
        if paths.result_pickle.exists():
            try:
                return pickle_load(paths.result_pickle)
            except Exception as error:  # unpickling runs code of others, which may raise anything
                return "error", f"{paths.result_pickle} cannot be read: {error!r}"
    return None


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """What jobs inherit: where the modules are, wherever they were submitted from."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *([before] if before else [])])
    # of the job in which this one runs, if any
    inside = submitit.helpers.clean_env() if "SLURM_JOB_ID" in os.environ else None
    try:
        with inside or contextlib.nullcontext():
            yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
