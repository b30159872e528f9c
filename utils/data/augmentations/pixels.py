"""Random changes to pixel values in [0, 1]: colour changes and erased boxes.

Each image in a batch [B, C, H, W] gets its own parameters.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from utils.data.augmentations.affine import Member, draw_box_sizes


class PixelChange(Member, ABC):
    """Random change to pixel values."""

    @abstractmethod
    def change(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return changed copies of images [B, C, H, W]."""


BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


@dataclass(frozen=True)
class ColorJitter(PixelChange):
    """torchvision's ColorJitter: brightness, contrast, saturation and hue in random order.

    The saturation and hue of single-channel images do not change.
    """

    brightness: float = 0.4  # largest deviation of the factor from 1
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.2  # largest shift, as a fraction of the full circle
    probability = 0.8

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw the order [n, 4] and the deviations [n, 4] of each image's adjustments."""
        options = {"generator": generator, "device": generator.device}
        bounds = (self.brightness, self.contrast, self.saturation, self.hue)
        orders = torch.rand(n, 4, **options).argsort(dim=1)
        deviations = (2 * torch.rand(n, 4, **options) - 1).unbind(1)
        # a tensor of the bounds would have to be copied to the GPU
        return orders, torch.stack([b * d for b, d in zip(bounds, deviations, strict=True)], dim=1)

    def change(self, images: Tensor, generator: torch.Generator) -> Tensor:
        # All orders are computed in one pass: one hue shift, with three blends before it and
        # three after it; blends that an image does not use have a factor of 1
        orders, deviations = self.draw(len(images), generator)
        factors = 1 + deviations.gather(1, orders)
        steps = torch.arange(4, device=images.device)
        hue_step = (orders == HUE).int().argmax(dim=1, keepdim=True)
        before = factors.where(steps < hue_step, 1.0)
        after = factors.where(steps > hue_step, 1.0)
        for k in (0, 1, 2):
            images = blend(images, orders[:, k], before[:, k])
        images = adjust_hue(images, deviations[:, HUE])
        for k in (1, 2, 3):
            images = blend(images, orders[:, k], after[:, k])
        return images


class Grayscale(PixelChange):
    """Replaces all channels with the luma."""

    probability = 0.2

    def change(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return luma(images).expand_as(images)


@dataclass(frozen=True)
class Erasing(PixelChange):
    """torchvision's RandomErasing: replaces a box of whole pixels with grey."""

    area: tuple[float, float] = (0.02, 0.33)  # bounds of the erased share of the image, uniform
    ratio: tuple[float, float] = (0.3, 3.3)  # bounds of height / width, log-uniform
    probability = 0.5
    in_chain = False

    def change(self, images: Tensor, generator: torch.Generator) -> Tensor:
        n, _, height, width = images.shape
        heights, widths, is_found = draw_box_sizes(
            n,
            aspect=width / height,
            area=self.area,
            ratio=(1 / self.ratio[1], 1 / self.ratio[0]),
            # so that the rounded box stays smaller than the image
            largest=(1 - 0.5 / height, 1 - 0.5 / width),
            generator=generator,
        )
        y, x = torch.rand(2, n, generator=generator, device=generator.device)
        is_in_rows = _covered(height, (heights * height).round() * is_found, y)
        is_in_columns = _covered(width, (widths * width).round() * is_found, x)
        is_erased = is_in_rows[:, None, :, None] & is_in_columns[:, None, None, :]
        return images.masked_fill(is_erased, 0.5)


def blend(images: Tensor, kinds: Tensor, factors: Tensor) -> Tensor:
    """Multiply each image's difference from a base by a factor; kinds and factors are [B].

    The base is black (BRIGHTNESS), the mean luma of the image (CONTRAST), or the luma of each pixel
    (SATURATION).
    """
    kinds, factors = kinds.view(-1, 1, 1, 1), factors.view(-1, 1, 1, 1)
    gray = luma(images)
    means = gray.mean(dim=(1, 2, 3), keepdim=True)
    bases = gray.where(kinds == SATURATION, means.where(kinds == CONTRAST, 0.0))
    return torch.lerp(bases, images, factors).clamp_(0, 1)


def adjust_hue(images: Tensor, shifts: Tensor) -> Tensor:
    """Shift the hue (as in HSV) by fractions [B] of the full circle.

    Value (the largest channel) and saturation are unchanged, so no conversion to HSV and back is
    needed: as a function of the hue, each channel is a trapezoid between the smallest and the
    largest channel.
    """
    if images.shape[1] == 1:
        return images
    smallest, largest = images.aminmax(dim=1, keepdim=True)
    chroma = largest - smallest
    red, green, blue = images.split(1, dim=1)
    # hue in sixths of the circle; arbitrary if the chroma is zero
    divisor = chroma.where(chroma > 0, 1.0)
    hues = torch.where(
        red == largest,
        (green - blue) / divisor,
        torch.where(green == largest, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    hues = (hues + 6 * shifts.view(-1, 1, 1, 1)) % 6
    red, green, blue = (hues - 3).abs() - 1, 2 - (hues - 2).abs(), 2 - (hues - 4).abs()
    return torch.cat([red, green, blue], dim=1).clamp_(0, 1).mul_(chroma).add_(smallest)


def luma(images: Tensor) -> Tensor:
    """Weighted mean [B, 1, H, W] of the channels (ITU-R 601).

    Raises ValueError unless there are 1 or 3 channels.
    """
    n_channels = images.shape[1]
    if n_channels not in (1, 3):
        raise ValueError(
            f"color and gray need images with 1 (grey) or 3 (RGB) channels, got {n_channels}: "
            "remove them from `equivalence`."
        )
    return tvf.rgb_to_grayscale(images)


def _covered(side: int, sizes: Tensor, positions: Tensor) -> Tensor:
    """Mask [n, side] of runs of integer length `sizes` [n] at relative positions [n] in [0, 1)."""
    starts = (positions * (side - sizes + 1)).floor()[:, None]
    pixels = torch.arange(side, device=sizes.device)
    return (starts <= pixels) & (pixels < starts + sizes[:, None])
