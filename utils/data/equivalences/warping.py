"""Interpolates a batch of images once, wherever affine maps have moved their content to."""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F


def compose(matrices: Sequence[Tensor]) -> Tensor | None:
    """The product of matrices [B, 3, 3], of which the last acts first; None if there are none."""
    return reduce(torch.matmul, matrices) if matrices else None


def warp(images: Tensor, moves: Tensor | None = None, crops: Tensor | None = None) -> Tensor:
    """Move the content of images [B, C, H, W], bilinearly, by moves and then crops [B, 3, 3].

    Matrices map a point of the source, in pixels from the centre, to where it is seen. At least one
    of the two has to be given.

    Moves may show what lies outside of the image: that is black, and the image's outermost half
    pixel fades into it, as in torchvision's affine. Crops may not: they magnify or mirror a part of
    what the moves have made, and continue its outermost pixels by half a pixel instead of fading,
    as in torchvision's resize.
    """
    height, width = images.shape[-2:]
    # Sampling asks where each point of the result comes from: first undo the crops.
    x, y = _centres(width, images.device), _centres(height, images.device)[:, None]
    if crops is not None:
        x, y = _undo(crops, x, y)
        x = x.clamp((1 - width) / 2, (width - 1) / 2)
        y = y.clamp((1 - height) / 2, (height - 1) / 2)
    if moves is not None:
        x, y = _undo(moves, x, y)
    # grid_sample measures positions in half sides; to put x and y side by side in memory, as its
    # result's shape suggests, would take longer than the sampling
    grid = torch.stack([x * (2 / width), y * (2 / height)], dim=1).permute(0, 2, 3, 1)
    result = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return result.clamp_(0, 1)  # the weights of neighbours sum to 1 up to rounding errors only


def _centres(side: int, device: torch.device) -> Tensor:
    """Positions [side] of pixels, from the middle of the side."""
    return torch.arange(side, device=device) - (side - 1) / 2


def _undo(matrices: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Positions [B, H, W] that matrices [B, 3, 3] map to positions that broadcast to [B, H, W]."""
    # inv_ex, unlike inv, does not wait for the device
    inverse = torch.linalg.inv_ex(matrices).inverse[:, :2, :, None, None]
    return tuple(row[:, 0] * x + (row[:, 1] * y + row[:, 2]) for row in inverse.unbind(dim=1))
