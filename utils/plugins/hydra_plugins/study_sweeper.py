"""The sweeper of hyper-parameter searches, for Hydra, which takes plugins from this package only.

Hydra imports this file at every start, so it imports nothing heavy; the work is in `utils.search`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class StudySweeper(Sweeper):
    """Runs the trials of a study in batches, until it has as many as were asked for.

    Parameters
    ----------
    file : sqlite data base of the experiment's studies.
    study_name : of the study; a number is taken as text.
    objectives : name(s) of the metric(s) that `main` returns.
    directions : minimize or maximize, for each objective.
    n_trials : of the study in all.
    n_parallel : trials that are launched at once; the next ones wait for the slowest.
    retry_failed : whether trials that failed in former calls are run again.
    sampler : config of one of Optuna's samplers, with its seed.
    """

    def __init__(
        self,
        *,
        file: str,
        study_name: object,
        objectives: str | Sequence[str],
        directions: Sequence[str],
        n_trials: int,
        n_parallel: int,
        retry_failed: bool,
        sampler: Mapping[str, object],
    ):
        self._settings = {
            "file": Path(file),
            "name": str(study_name),
            "objectives": [objectives] if isinstance(objectives, str) else list(objectives),
            "directions": list(directions),
            "n_trials": n_trials,
            "retry_failed": retry_failed,
            "sampler": sampler,
        }
        self._n_parallel = n_parallel

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self._sweep_dir = Path(config.hydra.sweep.dir)
        self._launcher = Plugins.instance().instantiate_launcher(
            config=config, hydra_context=hydra_context, task_function=task_function
        )

    def sweep(self, arguments: list[str]) -> None:
        from utils.search.loop import run_trials

        run_trials(
            arguments,
            launcher=self._launcher,
            sweep_dir=self._sweep_dir,
            n_parallel=self._n_parallel,
            **self._settings,
        )


ConfigStore.instance().store(
    group="hydra/sweeper",
    name="study",
    node={
        "_target_": "hydra_plugins.study_sweeper.StudySweeper",
        "_recursive_": False,  # a sampler is made for each trial
        "defaults": [{"sampler": "random"}],
    },
)
