"""Hydra's sweeper for hyper-parameter searches.

Hydra imports all modules of the package `hydra_plugins` at every start, so this one imports nothing
heavy; the work is in `utils.search`.
"""

from collections.abc import Mapping

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

# Classes of optuna.samplers by their names in hydra-optuna-sweeper. CmaEsSampler supports neither
# choices nor several objectives; hypopt=none does what GridSampler does.
SAMPLERS = {
    "random": "RandomSampler",
    "tpe": "TPESampler",
    "nsgaii": "NSGAIISampler",
}


class StudySweeper(Sweeper):
    """Runs the trials of a study in batches until it has `hypopt.n_trials`.

    Parameters
    ----------
    sampler : config of one of Optuna's samplers; other settings are in `hypopt`.
    """

    def __init__(self, sampler: Mapping[str, object]):
        pass  # each trial gets its own sampler from the config

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
    group="hydra/sweeper",
    name="study",
    node={
        "_target_": "hydra_plugins.study_sweeper.StudySweeper",
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
