"""Building blocks of networks: standardisation, activations, initialisation, image resizing."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Shape = Sequence[int]


class Standardize(nn.Module):
    """(x - mean) / std for each channel of images x [B, C, H, W].

    Parameters
    ----------
    in_shape : shape of one example.
    mean, std : C values each, in units of x; if both are None, x is unchanged. They describe the
        data, so they are not part of the state dict.
    """

    def __init__(
        self,
        in_shape: Shape,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ):
        super().__init__()
        self.is_identity = mean is None and std is None
        if self.is_identity:
            return
        if mean is None or std is None:
            raise ValueError(f"mean={mean} and std={std}: give both, or neither")
        mean, std = list(mean), list(std)
        if len(in_shape) != 3 or not len(mean) == len(std) == in_shape[0]:
            raise ValueError(
                f"mean={mean} and std={std} need one value for each channel of images [C, H, W], "
                f"but examples have the shape {tuple(in_shape)}"
            )
        if min(std) <= 0:
            raise ValueError(f"std={std}: standard deviations must be above 0")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32), persistent=False)

    def forward(self, x: Tensor) -> Tensor:  # [B, *in_shape] -> [B, *in_shape]
        if self.is_identity:
            return x
        return (x - self.mean[:, None, None]) / self.std[:, None, None]


class BatchNorm(_BatchNorm):
    """Batch normalisation of x [B, C, ...].

    Unlike torch's, it does not count its batches: nothing reads the count, and each increment
    would launch a kernel.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        """Do nothing: any number of dimensions is accepted."""

    def forward(self, x: Tensor) -> Tensor:
        statistics = self.running_mean, self.running_var
        return F.batch_norm(
            x, *statistics, self.weight, self.bias, self.training, self.momentum, self.eps
        )


def activation_named(name: str) -> nn.Module:
    """The activation `torch.nn.<name>`, e.g. "ReLU" or "Softplus"."""
    activation = getattr(nn, name, None)
    if activation is None:
        raise ValueError(f"unknown activation {name!r}: torch.nn has no such module")
    return activation()


def initialize(network: nn.Module) -> None:
    """Draw initial weights as in the paper's code (He et al. 2015, arXiv:1502.01852).

    Linear layers: Kaiming uniform; convolutions: Kaiming normal with fan-out; biases: 0.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
        elif isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def power_of_two_side(image_shape: Shape, network: str, least: int) -> int:
    """Smallest power of two that is at least the side of square images [C, S, S].

    Raises ValueError, naming the `network`, for other shapes and for results below `least`.
    """
    height, width = image_shape[1:] if len(image_shape) == 3 else (0, 1)
    side = 1 << (height - 1).bit_length() if height else 0
    if height != width or side < least:
        raise ValueError(
            f"{network} needs square images [C, S, S] with a side S above {least // 2}, but "
            f"the shape is {tuple(image_shape)}: resize the data or use another architecture"
        )
    return side


def resize(images: Tensor, side: int, *, antialias: bool = False) -> Tensor:
    """Bilinearly resize images [B, C, S, S] to [B, C, side, side]."""
    if images.shape[-1] == side:
        return images
    # 16-bit floats are unsupported or imprecise, depending on the device
    images = images.to(torch.promote_types(images.dtype, torch.float32))
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=antialias)
