"""Batch normalisation over the shares of all processes, where torch has none: on CPUs."""

from pytorch_lightning.plugins.layer_sync import LayerSync
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from lossyless.all_gather import gather, own_rows


class GatheredBatchNorm(LayerSync):
    """Lets each batch normalisation see the rows of all processes while it trains.

    Outputs, gradients and running statistics are those of one process with the whole batch. All
    rows travel, which `torch.nn.SyncBatchNorm` spares GPUs.
    """

    def __init__(self) -> None:
        self._hooks: list[RemovableHandle] = []

    def apply(self, model: nn.Module) -> nn.Module:
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                self._hooks.append(module.register_forward_pre_hook(_gather_input))
                self._hooks.append(module.register_forward_hook(_take_own_output))
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        while self._hooks:
            self._hooks.pop().remove()
        return model


def _gather_input(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
    return tuple(map(gather, inputs)) if module.training else None


def _take_own_output(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor | None:
    return own_rows(output) if module.training else None
