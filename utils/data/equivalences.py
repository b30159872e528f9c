"""Batched augmentations: the groups of transformations that tasks on images are invariant to.

All members are affine. Those that are asked for are composed into one matrix per example, so that a
batch is interpolated once, on its device. To add one (e.g. a flip): write a class with `matrix` and
enter it in `REGISTRY`.

Matrices [B, 3, 3] act on homogeneous pixel coordinates (x to the right, y down) from the image's
centre and map a point of the source to where it is seen in the result. The composition is that of
torchvision's `RandomAffine`, of which the defaults for augmented MNIST are parameters: a point is
scaled, then sheared, then rotated, then translated, whatever the order of the names.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Affine(ABC):
    """One-parameter family of affine maps whose parameter is uniform in [low, high]."""

    low: float
    high: float
    identity = 0.0  # the parameter that changes nothing

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n parameters, [n]."""
        uniform = torch.rand(n, generator=generator, device=generator.device)
        return self.low + (self.high - self.low) * uniform

    @abstractmethod
    def matrix(self, parameters: Tensor, height: int, width: int) -> Tensor:
        """Matrices [n, 3, 3] of the parameters [n] for images of this size."""


class Rotation(Affine):
    """Parameter: angle in degrees, clockwise."""

    def matrix(self, parameters: Tensor, height: int, width: int) -> Tensor:
        radians = parameters.deg2rad()
        matrix = _identity_like(parameters)
        matrix[:, 0, 0] = matrix[:, 1, 1] = radians.cos()
        matrix[:, 1, 0] = radians.sin()
        matrix[:, 0, 1] = -matrix[:, 1, 0]
        return matrix


class Shear(Affine):
    """Parameter: angle in degrees by which vertical lines lean, as torchvision's x-shear."""

    def matrix(self, parameters: Tensor, height: int, width: int) -> Tensor:
        matrix = _identity_like(parameters)
        matrix[:, 0, 1] = -parameters.deg2rad().tan()
        return matrix


class Scale(Affine):
    """Parameter: factor by which the content grows."""

    identity = 1.0

    def matrix(self, parameters: Tensor, height: int, width: int) -> Tensor:
        matrix = _identity_like(parameters)
        matrix[:, 0, 0] = matrix[:, 1, 1] = parameters
        return matrix


class XTranslation(Affine):
    """Parameter: shift to the right as a fraction of the width (not rounded to pixels)."""

    def matrix(self, parameters: Tensor, height: int, width: int) -> Tensor:
        matrix = _identity_like(parameters)
        matrix[:, 0, 2] = parameters * width
        return matrix


class YTranslation(Affine):
    """Parameter: shift downwards as a fraction of the height (not rounded to pixels)."""

    def matrix(self, parameters: Tensor, height: int, width: int) -> Tensor:
        matrix = _identity_like(parameters)
        matrix[:, 1, 2] = parameters * height
        return matrix


# In the order of composition, the last one acts first. Names with "--" are weaker versions.
REGISTRY: dict[str, Affine] = {
    "x_translation": XTranslation(-0.25, 0.25),
    "x_translation--": XTranslation(-0.15, 0.15),
    "y_translation": YTranslation(-0.25, 0.25),
    "y_translation--": YTranslation(-0.15, 0.15),
    "rotation": Rotation(-45, 45),
    "rotation--": Rotation(-15, 15),
    "shear": Shear(-25, 25),
    "shear--": Shear(-15, 15),
    "scale": Scale(0.6, 1.4),
    "scale--": Scale(0.8, 1.2),
}


class Augmentation:
    """Applies each named member to each image independently with probability `p_augment`.

    Raises
    ------
    ValueError
        If a name is unknown or p_augment is not a probability.
    """

    def __init__(self, names: Sequence[str], p_augment: float = 1.0) -> None:
        if unknown := [name for name in names if name not in REGISTRY]:
            raise ValueError(f"Unknown equivalence {unknown}: choose from {', '.join(REGISTRY)}.")
        if not 0 <= p_augment <= 1:
            raise ValueError(f"p_augment must lie in [0, 1], got {p_augment}.")
        self.members = [member for name, member in REGISTRY.items() if name in names]
        self.p_augment = p_augment

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augment float images [B, C, H, W]; what comes from outside of an image is 0 (black)."""
        if not self.members or self.p_augment == 0:
            return images
        return warp(images, self.draw_matrices(*images.shape[::2], images.shape[-1], generator))

    def draw_matrices(self, n: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Draw the composed matrices [n, 3, 3] of n images."""
        matrices = []
        for member in self.members:
            is_applied = (
                torch.rand(n, generator=generator, device=generator.device) < self.p_augment
            )
            parameters = member.draw(n, generator).where(
                is_applied, torch.full_like(is_applied, member.identity, dtype=torch.float32)
            )
            matrices.append(member.matrix(parameters, height, width))
        return reduce(torch.matmul, matrices)


def warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Move the content of images [B, C, H, W] by matrices [B, 3, 3]: bilinear, zeros outside."""
    height, width = images.shape[-2:]
    # Sampling asks where each point of the result comes from; inv_ex, unlike inv, does not wait for
    # the device. grid_sample measures positions in half sides.
    to_source = torch.linalg.inv_ex(matrices).inverse[:, :2]
    half_sides = torch.tensor([width / 2, height / 2, 1.0], device=images.device)
    to_source = to_source * half_sides / half_sides[:2, None]
    grid = F.affine_grid(to_source, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _identity_like(parameters: Tensor) -> Tensor:
    return torch.eye(3, device=parameters.device).repeat(len(parameters), 1, 1)
