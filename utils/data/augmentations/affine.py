"""Random affine maps of the image plane.

Matrices [B, 3, 3] map points of the source to points of the result, in homogeneous pixel
coordinates (x to the right, y down) relative to the image's centre.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

N_TRIES = 10  # candidates for each box


class Member:
    """One of the transformations that make up an augmentation."""

    probability: ClassVar[float] = 1.0  # of transforming an image
    #: whether the member follows the shared random decision to augment an image
    in_chain: ClassVar[bool] = True


class Affine(Member, ABC):
    """Random affine maps."""

    stays_inside: ClassVar[bool] = False  # whether results show only the source image

    @abstractmethod
    def sample(self, n: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Draw matrices [n, 3, 3] for images of this size."""


@dataclass(frozen=True)
class OneParameter(Affine):
    """Maps with one parameter, drawn uniformly from [low, high]."""

    low: float
    high: float

    def sample(self, n: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        return self.matrix(self.draw(n, generator), height, width)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        uniform = torch.rand(n, generator=generator, device=generator.device)
        return self.low + (self.high - self.low) * uniform

    @abstractmethod
    def matrix(self, parameters: Tensor, height: int, width: int) -> Tensor:
        """Matrices [n, 3, 3] for parameters [n] and images of this size."""


class Rotation(OneParameter):
    """Parameter: angle in degrees, clockwise."""

    def matrix(self, parameters: Tensor, height: int, width: int) -> Tensor:
        radians = parameters.deg2rad()
        matrix = identities(len(parameters), parameters.device)
        matrix[:, 0, 0] = matrix[:, 1, 1] = radians.cos()
        matrix[:, 1, 0] = radians.sin()
        matrix[:, 0, 1] = -matrix[:, 1, 0]
        return matrix


class Shear(OneParameter):
    """Parameter: tilt of vertical lines in degrees, as in torchvision's x-shear."""

    def matrix(self, parameters: Tensor, height: int, width: int) -> Tensor:
        matrix = identities(len(parameters), parameters.device)
        matrix[:, 0, 1] = -parameters.deg2rad().tan()
        return matrix


class Scale(OneParameter):
    """Parameter: magnification factor."""

    def matrix(self, parameters: Tensor, height: int, width: int) -> Tensor:
        matrix = identities(len(parameters), parameters.device)
        matrix[:, 0, 0] = matrix[:, 1, 1] = parameters
        return matrix


@dataclass(frozen=True)
class Translation(OneParameter):
    """Parameter: shift along axis 0 (to the right) or 1 (down), as a fraction of the image's side.

    Shifts are rounded to whole pixels.
    """

    axis: int

    def matrix(self, parameters: Tensor, height: int, width: int) -> Tensor:
        matrix = identities(len(parameters), parameters.device)
        matrix[:, self.axis, 2] = (parameters * (width, height)[self.axis]).round()
        return matrix


@dataclass(frozen=True)
class Flip(Affine):
    """Mirrors axis 0 (swaps left and right) or 1 (top and bottom)."""

    axis: int
    probability = 0.5
    stays_inside = True

    def sample(self, n: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        matrix = identities(n, generator.device)
        matrix[:, self.axis, self.axis] = -1
        return matrix


class SquareSymmetry(Affine):
    """One of the eight symmetries of the square (the group D4), all equally likely."""

    stays_inside = True

    def sample(self, n: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        if height != width:
            raise ValueError(f"D4_group needs square images, got {height} x {width} pixels.")
        symmetries = torch.randint(8, (n,), generator=generator, device=generator.device)
        n_quarters, is_mirrored = symmetries % 4, symmetries >= 4
        cos = (n_quarters == 0).float() - (n_quarters == 2).float()
        sin = (n_quarters == 1).float() - (n_quarters == 3).float()
        x_sign = 1 - 2 * is_mirrored.float()
        matrix = identities(n, generator.device)
        matrix[:, 0, 0], matrix[:, 0, 1] = cos * x_sign, -sin
        matrix[:, 1, 0], matrix[:, 1, 1] = sin * x_sign, cos
        return matrix


class Crop(Affine):
    """Magnifies a box inside the image to the image's size; boxes are not rounded to pixels."""

    stays_inside = True

    @abstractmethod
    def draw_boxes(
        self, n: int, height: int, width: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw the x, y, widths and heights that `crop_matrices` takes."""

    def sample(self, n: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        return crop_matrices(*self.draw_boxes(n, height, width, generator), height, width)


@dataclass(frozen=True)
class FixedCrop(Crop):
    """Crops at a random position; the box's sides are `fraction` times the image's."""

    fraction: float

    def draw_boxes(
        self, n: int, height: int, width: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x, y = torch.rand(2, n, generator=generator, device=generator.device) - 0.5
        sides = torch.full_like(x, self.fraction)
        return x * (1 - sides), y * (1 - sides), sides, sides


@dataclass(frozen=True)
class ResizeCrop(Crop):
    """torchvision's RandomResizedCrop; for `area` and `ratio`, see `draw_box_sizes`."""

    area: tuple[float, float] = (0.3, 1.0)
    ratio: tuple[float, float] = (0.7, 1.4)

    def draw_boxes(
        self, n: int, height: int, width: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        aspect = width / height
        heights, widths, is_found = draw_box_sizes(
            n,
            aspect=aspect,
            area=self.area,
            ratio=self.ratio,
            largest=(1.0, 1.0),
            generator=generator,
        )
        # if no candidate fits: the largest central box within the bounds of the ratio
        closest = min(max(aspect, self.ratio[0]), self.ratio[1]) / aspect
        heights = heights.where(is_found, min(1.0, 1 / closest))
        widths = widths.where(is_found, min(1.0, closest))
        x, y = (torch.rand(2, n, generator=generator, device=generator.device) - 0.5) * is_found
        return x * (1 - widths), y * (1 - heights), widths, heights


@dataclass(frozen=True)
class JointResizeCrop(ResizeCrop):
    """A `ResizeCrop` that also changes labels, so that tasks are only approximately invariant.

    If the box shows less than `min_area` of the image, then, with probability `label_noise`, the
    label is replaced with a class drawn uniformly from all classes.

    The noise is part of the task, even in evaluation. With K classes, the expected error of any
    predictor is at least label_noise * P(area < min_area) * (K - 1) / K, times the probability that
    the crop is applied.
    """

    in_chain = False
    label_noise: float = 0.0
    min_area: float = 0.5

    def relabel(
        self, targets: Tensor, matrices: Tensor, n_classes: int, generator: torch.Generator
    ) -> Tensor:
        """Draw the labels [n] of images cropped with matrices [n, 3, 3]."""
        shown_area = 1 / (matrices[:, 0, 0] * matrices[:, 1, 1])
        uniform = torch.rand(len(targets), generator=generator, device=generator.device)
        classes = torch.randint(
            n_classes, targets.shape, generator=generator, device=generator.device
        )
        is_replaced = (shown_area < self.min_area) & (uniform < self.label_noise)
        return torch.where(is_replaced, classes, targets)


def identities(n: int, device: torch.device) -> Tensor:
    return torch.eye(3, device=device).repeat(n, 1, 1)


def crop_matrices(
    x: Tensor, y: Tensor, widths: Tensor, heights: Tensor, height: int, width: int
) -> Tensor:
    """Matrices [n, 3, 3] that magnify boxes to the image's size.

    Boxes are given by their sizes [n] and by the positions [n] of their centres relative to the
    image's centre, all as fractions of the image's sides.
    """
    matrix = identities(len(x), x.device)
    matrix[:, 0, 0], matrix[:, 0, 2] = 1 / widths, -x * width / widths
    matrix[:, 1, 1], matrix[:, 1, 2] = 1 / heights, -y * height / heights
    return matrix


def draw_box_sizes(
    n: int,
    *,
    aspect: float,
    area: tuple[float, float],
    ratio: tuple[float, float],
    largest: tuple[float, float],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw the sizes of n boxes as torchvision does: the first of `N_TRIES` candidates that fits.

    Sizes are fractions of the images' sides and are not rounded to whole pixels.

    Parameters
    ----------
    aspect : width / height of the images.
    area : bounds of the box's area as a fraction of the image's; drawn uniformly.
    ratio : bounds of the box's width / height in pixels; drawn log-uniformly.
    largest : maximum height and width of a box.

    Returns
    -------
    heights [n], widths [n], and whether any candidate fits [n]; if none does, the box is too large.
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
