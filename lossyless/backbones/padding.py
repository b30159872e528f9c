"""The padding of TensorFlow, for networks whose weights were trained with it."""

from torch import Tensor, nn
from torch.nn import functional as F


class _PaddedBehind(nn.Module):
    """A convolution of stride 2 whose odd pixel of padding goes behind: right and bottom.

    TensorFlow's "SAME" pads an even side with (0, 1) for a kernel of 3 and stride 2, where PyTorch
    pads with (1, 1): the samples lie one pixel apart.
    """

    def __init__(self, convolution: nn.Conv2d):
        super().__init__()
        total = convolution.kernel_size[0] - convolution.stride[0]
        before = total // 2
        self.padding = (before, total - before) * 2
        self.convolution = convolution
        convolution.padding = (0, 0)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(F.pad(x, self.padding))


def pad_as_tensorflow(network: nn.Module) -> None:
    """Give all convolutions with stride 2 and a padding that of TensorFlow, for even sides."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d) and child.stride == (2, 2) and child.padding != (0, 0):
                setattr(module, name, _PaddedBehind(child))
