"""The launcher of sweeps whose jobs are submitted, for Hydra, which takes plugins from here only.

Hydra imports this file at every start, so it imports nothing heavy; the work is in
`utils.cluster.launcher`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import BaseSubmititLauncher


class JobLauncher(BaseSubmititLauncher):
    """Hydra's launcher for submitit, but one that outlives what happens to jobs.

    The config of each job is composed once, at submission, so that a job that waits in the queue,
    or is requeued, takes no notice of edits. All jobs are awaited, whether others fail or not, and
    one that left the queue without a result fails instead of being awaited for ever.

    Parameters
    ----------
    options : of conf/slurm/.
    """

    def __init__(self, options: Mapping[str, object]):
        super().__init__(**options)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Submit the jobs and wait until all have ended; how each of them did."""
        from utils.cluster import launcher

        jobs = launcher.compose_jobs(
            job_overrides,
            initial_job_idx,
            context=self.hydra_context,
            task=self.task_function,
            config=self.config,
        )
        return launcher.run_jobs(jobs, self.params, sweep_dir=Path(self.config.hydra.sweep.dir))


ConfigStore.instance().store(
    group="hydra/launcher",
    name="jobs",
    node={"_target_": "hydra_plugins.job_launchers.JobLauncher", "options": "${slurm}"},
)
