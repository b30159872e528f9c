"""Samples a batch of images once, wherever affine maps have moved their content to."""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F


def compose(matrices: Sequence[Tensor]) -> Tensor | None:
    """The product of matrices [B, 3, 3], of which the last acts first; None if there are none."""
    return reduce(torch.matmul, matrices) if matrices else None


def warp(
    images: Tensor, moves: Sequence[Tensor] = (), crops: Tensor | None = None, mode: str = "nearest"
) -> Tensor:
    """Move the content of images [B, C, H, W] by several moves, then by crops, all [B, 3, 3].

    Matrices map a point of the source, in pixels from the centre, to where it is seen; the last
    move acts first. What lies outside of the image is black, and what a move takes out of the frame
    is lost to the next one. Crops magnify or mirror a part of what the moves have made; they do not
    fade into black but continue its outermost pixels by half a pixel, as in torchvision's resize.

    Parameters
    ----------
    mode : "nearest", the default of torchvision's random affine maps: the result is that of one map
        after the other, each of which rounds to whole pixels, but pixels are read once. "bilinear":
        one interpolation, as crops want it.
    """
    height, width = images.shape[-2:]
    device = images.device
    # Sampling asks where each pixel of the result, counted from 0, comes from: undo the crops first
    x = torch.arange(width, dtype=torch.float32, device=device)
    y = torch.arange(height, dtype=torch.float32, device=device)[:, None]
    if crops is not None:
        x, y = _undo(crops, x, y, height, width)
        x, y = x.clamp_(0, width - 1), y.clamp_(0, height - 1)
    is_seen = None
    for k, move in enumerate(moves):
        if k:  # in the frame between two moves
            is_inside = _is_inside(x, width).logical_and_(_is_inside(y, height))
            is_seen = is_inside if is_seen is None else is_seen.logical_and_(is_inside)
        x, y = _undo(move, x, y, height, width)
        if mode == "nearest":
            x, y = x.round_(), y.round_()
    # grid_sample measures positions in half sides from the middle; to put x and y side by side in
    # memory, as its result's shape suggests, would take longer than the sampling
    x, y = ((2 / n) * p + (1 / n - 1) for p, n in ((x, width), (y, height)))
    grid = torch.stack([x, y], dim=1).permute(0, 2, 3, 1)
    result = F.grid_sample(images, grid, mode=mode, padding_mode="zeros", align_corners=False)
    if is_seen is not None:
        result *= is_seen[:, None]
    return result.clamp_(0, 1)  # the weights of neighbours sum to 1 up to rounding errors only


def _is_inside(positions: Tensor, side: int) -> Tensor:
    """Whether positions, in pixels from the first one's centre, lie within the pixels of a side."""
    return (positions - (side - 1) / 2).abs_() <= side / 2


def _undo(matrices: Tensor, x: Tensor, y: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Positions [B, H, W] that matrices [B, 3, 3] map to positions that broadcast to [B, H, W].

    Positions count pixels from 0, where matrices count them from the middle.
    """
    # inv_ex, unlike inv, does not wait for the device
    inverse = torch.linalg.inv_ex(matrices).inverse[:, :2, :, None, None]
    (xx, xy, x0), (yx, yy, y0) = (row.unbind(1) for row in inverse.unbind(1))
    column, row = (width - 1) / 2, (height - 1) / 2
    x0 = x0 + column - xx * column - xy * row
    y0 = y0 + row - yx * column - yy * row
    return xx * x + (xy * y).add_(x0), yx * x + (yy * y).add_(y0)
