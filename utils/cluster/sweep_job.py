"""The jobs of a sweep, in the form that submitit pickles."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import submitit
from hydra import version
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from utils.configs import resolvers


class JobError(RuntimeError):
    """A job failed or was lost."""


@dataclass(frozen=True)
class SweepJob:
    """A job with its composed config; submitit pickles it and calls it where the job runs."""

    num: int
    config: DictConfig
    task: TaskFunction
    context: HydraContext
    version_base: str  # Hydra's `version_base`, which is not stored in the config

    @property
    def folder(self) -> Path:
        """The job's folder, inside the sweep's folder."""
        return Path(self.config.hydra.sweep.dir, str(self.config.hydra.sweep.subdir))

    @property
    def overrides(self) -> list[str]:
        return list(self.config.hydra.overrides.task)

    def __call__(self) -> JobReturn:
        """Run the task and reraise any error, so that the scheduler sees the failure as well."""
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
        """Resubmit the same job after a preemption or time-out; it resumes from its checkpoints."""
        return submitit.helpers.DelayedSubmission(self)

    def failed(self, error: JobError) -> JobReturn:
        """The result returned to Hydra for a job that failed or was lost."""
        return JobReturn(overrides=self.overrides, status=JobStatus.FAILED, _return_value=error)


def compose_jobs(
    job_overrides: Sequence[Sequence[str]],
    first_num: int,
    *,
    context: HydraContext,
    task: TaskFunction,
    config: DictConfig,
) -> list[SweepJob]:
    """Compose the config of each job in a sweep; number the jobs from `first_num`.

    Later edits to the config files do not affect jobs that are pending or requeued.
    """
    jobs = []
    for num, overrides in enumerate(job_overrides, start=first_num):
        composed = context.config_loader.load_sweep_config(config, list(overrides))
        with open_dict(composed.hydra.job):
            composed.hydra.job.num = num
        jobs.append(SweepJob(num, composed, task, context, str(version.getbase())))
    return jobs
