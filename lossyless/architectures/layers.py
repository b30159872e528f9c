"""Helpers of the networks: initial weights, activations, resizing to powers of two."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Shape = Sequence[int]


def activation_named(name: str) -> nn.Module:
    """The activation `torch.nn.<name>`, e.g. "ReLU" or "Softplus"."""
    activation = getattr(nn, name, None)
    if activation is None:
        raise ValueError(f"unknown activation {name!r}: torch.nn has no module of that name")
    return activation()


def initialize(network: nn.Module) -> None:
    """Draw initial weights as in the paper's code (He et al. 2015, arXiv:1502.01852).

    Linear layers: Kaiming uniform; convolutions: Kaiming normal over the outputs; biases: 0.
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

    Raises ValueError, naming the `network`, for other shapes and results below `least`.
    """
    height, width = image_shape[1:] if len(image_shape) == 3 else (0, 1)
    side = 1 << (height - 1).bit_length() if height else 0
    if height != width or side < least:
        raise ValueError(
            f"{network} needs square images [C, S, S] with a side S above {least // 2}, not the "
            f"shape {tuple(image_shape)}: resize the data or use another architecture"
        )
    return side


def resize(images: Tensor, side: int, *, antialias: bool = False) -> Tensor:
    """Resize images [B, C, S, S] to a side, bilinearly."""
    if images.shape[-1] == side:
        return images
    # 16 bits are unsupported or imprecise, depending on the device
    images = images.to(torch.promote_types(images.dtype, torch.float32))
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=antialias)
