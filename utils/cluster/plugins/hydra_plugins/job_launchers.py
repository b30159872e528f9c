"""Hydra's launcher of sweeps whose jobs are submitted.

Hydra imports all modules of the package `hydra_plugins` at every start, so this one imports nothing
heavy; the work is in `utils.cluster.launcher`.
"""

from collections.abc import Sequence
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class JobLauncher(Launcher):
    """Submits jobs with submitit and waits until all of them have ended.

    Parameters
    ----------
    options : of conf/slurm/.
    """

    def __init__(self, options: DictConfig):
        self._options = OmegaConf.to_container(options, resolve=True)

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self._context, self._task, self._config = hydra_context, task_function, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Results of the jobs with these overrides, in order."""
        from utils.cluster import launcher, sweep_job

        jobs = sweep_job.compose_jobs(
            job_overrides,
            initial_job_idx,
            context=self._context,
            task=self._task,
            config=self._config,
        )
        return launcher.run_jobs(jobs, self._options, sweep_dir=Path(self._config.hydra.sweep.dir))


ConfigStore.instance().store(
    group="hydra/launcher",
    name="jobs",
    node={"_target_": "hydra_plugins.job_launchers.JobLauncher", "options": "${slurm}"},
)
