"""Standardisation of images, inside the networks: data are pixels in [0, 1]."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lossyless.architectures.layers import Shape


class Standardize(nn.Module):
    """(x - mean) / std, per channel of images x [B, C, H, W].

    Parameters
    ----------
    in_shape : shape of one example.
    mean, std : C values each, in units of the pixels; None for both: identity. They describe the
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
