"""What an option of `architecture` can be: a network, or an evaluation that needs no training.

The file of a network says `_partial_: true`: it is made when the shapes are known. An evaluation is
complete as its file has it, and stands at `architecture@predictor` only.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

from hydra.utils import instantiate
from omegaconf import DictConfig

from utils.configs.composing import ConfigError

if TYPE_CHECKING:  # torch takes seconds to import; errors in configs should not
    from torch import Tensor

NETWORKS = ("encoder", "decoder", "projector", "online")  # keys where nothing else can stand


class Evaluation(ABC):
    """A predictor that is no network: it fits a model of its own to what the receiver decoded."""

    @abstractmethod
    def evaluate(
        self,
        splits: "Mapping[str, tuple[Tensor, Tensor]]",
        *,
        task: str,
        seed: int,
        n_jobs: int = 1,
    ) -> dict[str, float]:
        """Metrics `<split>/pred/<name>` of validation and test; a function of data and seed only.

        Parameters
        ----------
        splits : (x [N, *shape], y) for each of "train", "val" and "test", on the CPU.
        task : of the data set: "classification" (y int64 [N]) or "regression" (float32 [N, D]).
        seed : of all that is random.
        n_jobs : processes that may compute at the same time.

        Raises
        ------
        ValueError
            If it cannot predict such targets, or predict from such examples.
        """


def is_network(architecture: DictConfig) -> bool:
    """Whether an option of `architecture`, such as `cfg.encoder`, is a network."""
    return bool(architecture.kwargs.get("_partial_", False))


def find_evaluation(cfg: DictConfig) -> Evaluation | None:
    """The evaluation at `architecture@predictor`; None if a network stands there."""
    if is_network(cfg.predictor):
        return None
    evaluation = instantiate(cfg.predictor.kwargs)
    if not isinstance(evaluation, Evaluation):
        raise ConfigError(
            f"architecture@predictor={cfg.predictor.name}: {type(evaluation).__name__} is neither "
            "a network, whose file says `_partial_: true`, nor a subclass of "
            "utils.configs.architectures.Evaluation: correct the file or the class"
        )
    return evaluation


def check_networks(cfg: DictConfig) -> None:
    """Raise `ConfigError` if an evaluation stands where a network must."""
    for place in NETWORKS:
        if not is_network(cfg[place]):
            raise ConfigError(
                f"architecture@{place}={cfg[place].name} is an evaluation, which can only stand at "
                f"architecture@predictor: choose a network for {place}"
            )


def check_architectures(cfg: DictConfig) -> None:
    """Raise `ConfigError` for any architecture that cannot stand where it does."""
    check_networks(cfg)
    find_evaluation(cfg)
