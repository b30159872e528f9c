"""Hydra plugins: a launcher that submits jobs, and a sweeper for hyperparameter searches.

Hydra imports all modules of the package `hydra_plugins` whenever it starts, so this one imports
nothing heavy. The implementations are in `utils.cluster.launcher` and `utils.search`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

# Classes in optuna.samplers, keyed by their names in hydra-optuna-sweeper. CmaEsSampler is missing,
# as it supports neither choices nor multiple objectives; hypopt=none replaces GridSampler.
SAMPLERS = {
    "random": "RandomSampler",
    "tpe": "TPESampler",
    "nsgaii": "NSGAIISampler",
}


class JobLauncher(Launcher):
    """Submits jobs through submitit with options from conf/slurm/; waits until all have ended."""

    def __init__(self, options: DictConfig):
        self._options = OmegaConf.to_container(options, resolve=True)

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self._context, self._task, self._config = hydra_context, task_function, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the jobs with these overrides and return their results in order."""
        from utils.cluster import launcher, sweep_job

        jobs = sweep_job.compose_jobs(
            job_overrides,
            initial_job_idx,
            context=self._context,
            task=self._task,
            config=self._config,
        )
        return launcher.run_jobs(jobs, self._options, sweep_dir=Path(self._config.hydra.sweep.dir))


class StudySweeper(Sweeper):
    """Runs trials in batches until the study has `hypopt.n_trials` of them."""

    def __init__(self, sampler: Mapping[str, object]):
        pass  # each trial gets its own sampler, created from the config

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self._config = config
        self._launcher = Plugins.instance().instantiate_launcher(
            config=config, hydra_context=hydra_context, task_function=task_function
        )

    def sweep(self, arguments: list[str]) -> None:
        from utils.search.loop import run_search

        run_search(self._config, arguments, self._launcher)


store = ConfigStore.instance().store
store(
    group="hydra/launcher",
    name="jobs",
    node={"_target_": "hydra_plugins.sweeps.JobLauncher", "options": "${slurm}"},
)
store(
    group="hydra/sweeper",
    name="study",
    node={
        "_target_": "hydra_plugins.sweeps.StudySweeper",
        "_recursive_": False,
        "defaults": [{"sampler": "random"}],
    },
)
for name, sampler in SAMPLERS.items():
    store(
        group="hydra/sweeper/sampler",
        name=name,
        node={"_target_": f"optuna.samplers.{sampler}", "seed": "${seed}"},
    )
