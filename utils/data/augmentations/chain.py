"""The equivalences by name, and how those that are asked for act together.

To add one, write an `Affine` or a `PixelChange` and enter it in `REGISTRY`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from utils.data.augmentations.affine import (
    Affine,
    Crop,
    FixedCrop,
    Flip,
    JointResizeCrop,
    ResizeCrop,
    Rotation,
    Scale,
    Shear,
    SquareSymmetry,
    XTranslation,
    YTranslation,
    identities,
)
from utils.data.augmentations.pixels import ColorJitter, Erasing, Grayscale, PixelChange
from utils.data.augmentations.warping import compose, warp

# The last one acts first; names with "--" are weaker versions.
AFFINE: dict[str, Affine] = {
    **{f"equiv_resize_crop_{p:g}": JointResizeCrop(label_noise=p) for p in (0, 0.05, 0.2, 0.5)},
    "resize_crop": ResizeCrop(),
    "crop": FixedCrop(7 / 8),  # 224 of 256 pixels
    "hflip": Flip(axis=0),
    "vflip": Flip(axis=1),
    "D4_group": SquareSymmetry(),
    "shear": Shear(-25, 25),
    "shear--": Shear(-15, 15),
    "scale": Scale(0.6, 1.4),
    "scale--": Scale(0.8, 1.2),
    "rotation": Rotation(-45, 45),
    "rotation--": Rotation(-15, 15),
    "y_translation": YTranslation(-0.25, 0.25),
    "y_translation--": YTranslation(-0.15, 0.15),
    "x_translation": XTranslation(-0.25, 0.25),
    "x_translation--": XTranslation(-0.15, 0.15),
}

# The first one acts first.
PIXELS: dict[str, PixelChange] = {
    "color": ColorJitter(),
    "gray": Grayscale(),
    "erasing": Erasing(),
}

# None does nothing to an image. "resize": data modules resize images to the shape of their data set
# when they read them. "label": all images of a class are equivalent; data modules pick another one.
REGISTRY: dict[str, Affine | PixelChange | None] = {
    **AFFINE,
    **PIXELS,
    "resize": None,
    "label": None,
}


class Augmentation:
    """Applies each named member to each image independently.

    The order of the names does not matter. All affine members make one `warp`, so that a batch is
    sampled once at most: content is translated, rotated, scaled and sheared, one after the other;
    what then lies in the frame of the image is flipped and cropped, and nothing else is seen.
    Changes of pixel values follow: color, gray, erasing.

    Parameters
    ----------
    names : keys of `REGISTRY`.
    p_augment : with this probability an image is augmented at all: each member then acts with its
        own probability. Members that are not `in_chain` (erasing, joint ones) have a draw of their
        own of p_augment, too.

    Attributes
    ----------
    uses_labels : whether images of the same class are equivalent, which is up to the data module.
    is_joint : whether a member changes labels too, so that `jointly` differs from a call.

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
        self.p_augment = p_augment
        self.affine = [member for name, member in AFFINE.items() if name in names]
        self.pixels = [member for name, member in PIXELS.items() if name in names]
        self.uses_labels = "label" in names
        self.is_joint = any(isinstance(member, JointResizeCrop) for member in self.affine)

    @property
    def is_identity(self) -> bool:
        """Whether each image is left as it is, and equivalent to no other one."""
        has_members = bool(self.affine or self.pixels) and self.p_augment > 0
        return not (has_members or self.uses_labels)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augment float images [B, C, H, W] in [0, 1]; they stay there.

        Raises
        ------
        ValueError
            If a member does not suit images of this shape.
        """
        return self._augment(images, generator)[0]

    def jointly(
        self, images: Tensor, targets: Tensor, n_classes: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Augment images [B, C, H, W] as a call does, and their labels [B], int64, with them."""
        augmented, matrices = self._augment(images, generator)
        for member, drawn in zip(self.affine, matrices, strict=True):
            if isinstance(member, JointResizeCrop):
                targets = member.relabel(targets, drawn, n_classes, generator)
        return augmented, targets

    def draw_matrices(
        self, images: Tensor, generator: torch.Generator
    ) -> tuple[list[Tensor], Tensor]:
        """Matrices [B, 3, 3] of each affine member, of which the last one acts first, and whether
        [B] the members in the chain act at all."""
        n, _, height, width = images.shape
        is_chained = _draw(self.p_augment, n, generator)
        matrices = []
        for member in self.affine:
            is_applied = self._draw_applied(member, is_chained, generator)[:, None, None]
            drawn = member.sample(n, height, width, generator)
            matrices.append(drawn.where(is_applied, identities(n, generator.device)))
        return matrices, is_chained

    def _augment(
        self, images: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Sequence[Tensor]]:
        matrices, is_chained = self.draw_matrices(images, generator)
        if self.p_augment == 0:
            return images, matrices
        if self.affine:
            inside = [member.stays_inside for member in self.affine]
            crops = [m for m, is_inside in zip(matrices, inside, strict=True) if is_inside]
            moves = [m for m, is_inside in zip(matrices, inside, strict=True) if not is_inside]
            mode = "bilinear" if any(isinstance(m, Crop) for m in self.affine) else "nearest"
            images = warp(images, moves, compose(crops), mode)
        for member in self.pixels:
            is_applied = self._draw_applied(member, is_chained, generator)
            changed = member.change(images, generator)
            images = torch.where(is_applied[:, None, None, None], changed, images)
        return images, matrices

    def _draw_applied(
        self, member: Affine | PixelChange, is_chained: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Whether [B] a member acts, of images whose chain does or does not."""
        n = len(is_chained)
        if not member.in_chain:
            is_chained = _draw(self.p_augment, n, generator)
        return is_chained & _draw(member.probability, n, generator)


def _draw(probability: float, n: int, generator: torch.Generator) -> Tensor:
    """n independent events, [n]."""
    return torch.rand(n, generator=generator, device=generator.device) < probability
