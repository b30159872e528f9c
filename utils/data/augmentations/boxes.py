"""Random boxes inside images, as torchvision's RandomResizedCrop and RandomErasing draw them."""

import math

import torch
from torch import Tensor

N_TRIES = 10


def draw_box_sizes(
    n: int,
    *,
    aspect: float,
    area: tuple[float, float],
    ratio: tuple[float, float],
    largest: tuple[float, float],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw box sizes as fractions of the images' sides, not rounded to pixels.

    Of `N_TRIES` candidates for each example, the first that fits is used.

    Parameters
    ----------
    n : number of examples.
    aspect : width / height of the images.
    area : bounds of the box's area as a fraction of the image's, uniform.
    ratio : bounds of the box's width / height in pixels, log-uniform.
    largest : height and width, as fractions, that a box may not exceed.

    Returns
    -------
    heights [n], widths [n], and whether a candidate fitted [n]; otherwise the box is too large.
    """
    shape = (2, N_TRIES, n)
    area_draw, ratio_draw = torch.rand(shape, generator=generator, device=generator.device)
    areas = area[0] + (area[1] - area[0]) * area_draw
    low, high = math.log(ratio[0] / aspect), math.log(ratio[1] / aspect)
    ratios = (low + (high - low) * ratio_draw).exp()
    heights, widths = (areas / ratios).sqrt(), (areas * ratios).sqrt()

    fits = (heights <= largest[0]) & (widths <= largest[1])
    first = fits.int().argmax(dim=0, keepdim=True)
    return heights.gather(0, first)[0], widths.gather(0, first)[0], fits.any(dim=0)
