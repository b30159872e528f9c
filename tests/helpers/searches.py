"""Searches whose jobs are functions of the sampled settings."""

from collections.abc import Callable, Sequence
from pathlib import Path

import optuna
from hydra.core.utils import JobReturn, JobStatus
from hydra_plugins.sweeps import SAMPLERS

from utils.search import study as studies
from utils.search.loop import Search
from utils.search.space import Space

X, LOG_Y = "x=interval(-1.0, 1)", "y=tag(log, interval(1e-4, 1))"
Params = dict[str, float]


def sampler(name: str = "random", **options: object) -> dict[str, object]:
    return {"_target_": f"optuna.samplers.{SAMPLERS[name]}", "seed": 3} | options


class FakeLauncher:
    """Calls a function of a trial's settings instead of running a job."""

    def __init__(self, function: Callable[[Params], object]):
        self.function = function
        self.batches: list[list[Params]] = []

    def launch(self, jobs: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        assert initial_job_idx == len(self.seen)
        self.batches.append([self._settings(job) for job in jobs])
        return [self._run(settings) for settings in self.batches[-1]]

    @property
    def seen(self) -> list[Params]:
        return [settings for batch in self.batches for settings in batch]

    def _run(self, settings: Params) -> JobReturn:
        try:
            return JobReturn(_return_value=self.function(settings), status=JobStatus.COMPLETED)
        except (ArithmeticError, RuntimeError, ValueError) as error:
            return JobReturn(_return_value=error, status=JobStatus.FAILED)

    @staticmethod
    def _settings(job: Sequence[str]) -> Params:
        pairs = (override.split("=", 1) for override in job)
        return {key: float(value) for key, value in pairs if key in "xy"}


def square(settings: Params) -> float:
    return settings["x"] ** 2


def conflict(settings: Params) -> tuple[float, float]:
    return settings["x"] ** 2, (settings["x"] - 1) ** 2


def fails_below_zero(settings: Params) -> float:
    if settings["x"] < 0:
        raise ValueError("x is negative")
    return settings["x"]


def run(
    folder: Path,
    function: Callable[[Params], object] = square,
    n_trials: int = 5,
    *,
    name: str = "study",
    space: Sequence[str] = ("fixed=1", X, LOG_Y),
    objectives: Sequence[str] = ("val/pred/err",),
    n_parallel: int = 2,
    **settings: object,
) -> FakeLauncher:
    """Run a search in `folder` once."""
    launcher = FakeLauncher(function)
    defaults = {
        "directions": ["minimize"] * len(objectives),
        "retry_failed": True,
        "sampler": sampler(),
    }
    search = Search(
        folder / studies.FILE,
        name,
        space=Space.of(space),
        objectives=objectives,
        n_trials=n_trials,
        **(defaults | settings),
    )
    search.run(launcher, folder / "sweep", n_parallel)
    return launcher


def load(folder: Path, name: str = "study") -> optuna.Study:
    return studies.load(folder / studies.FILE, name)


def states(folder: Path) -> list[str]:
    return [trial.state.name for trial in load(folder).trials]
