"""Named, batched augmentations: one warp for all affine maps, then changes to pixel values.

To add one, implement an `Affine` or a `PixelChange` and add it to `AFFINE` or `PIXELS`.
"""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.configs.checks import check_known
from utils.data.augmentations.affine import (
    Affine,
    Crop,
    FixedCrop,
    Flip,
    JointResizeCrop,
    Member,
    ResizeCrop,
    Rotation,
    Scale,
    Shear,
    SquareSymmetry,
    Translation,
)
from utils.data.augmentations.pixels import ColorJitter, Erasing, Grayscale, PixelChange

# The last one is applied first; names that end in "--" denote weaker versions.
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
    "y_translation": Translation(-0.25, 0.25, axis=1),
    "y_translation--": Translation(-0.15, 0.15, axis=1),
    "x_translation": Translation(-0.25, 0.25, axis=0),
    "x_translation--": Translation(-0.15, 0.15, axis=0),
}

# The first one is applied first.
PIXELS: dict[str, PixelChange] = {
    "color": ColorJitter(),
    "gray": Grayscale(),
    "erasing": Erasing(),
}

# Names mapped to None do nothing here: "resize" is applied to all images when they are read, and
# "label", which makes all images of a class equivalent, is implemented by the data module.
REGISTRY: dict[str, Member | None] = {
    **AFFINE,
    **PIXELS,
    "resize": None,
    "label": None,
}


class Augmentation:
    """Applies each named member to each image independently.

    Names are keys of `REGISTRY`, in any order. All affine members are composed into one `warp`,
    which samples the batch once: images are translated, rotated, scaled and sheared, in this order;
    then the visible part is flipped and cropped. Changes to pixel values follow: color, gray,
    erasing. An image is augmented with probability p_augment; each member then acts with its own
    probability. For members that are not `in_chain` (erasing, joint members), whether to
    augment is decided separately, also with probability p_augment.

    Attributes
    ----------
    uses_labels : whether images of a class are equivalent; the data module handles this.
    is_joint : whether a member also changes labels; see `jointly`.
    """

    def __init__(self, names: Sequence[str], p_augment: float = 1.0) -> None:
        check_known("equivalence", names, REGISTRY)
        if not 0 <= p_augment <= 1:
            raise ValueError(f"p_augment must lie in [0, 1], got {p_augment}.")
        self.p_augment = p_augment
        self.affine = [member for name, member in AFFINE.items() if name in names]
        self.pixels = [member for name, member in PIXELS.items() if name in names]
        self.uses_labels = "label" in names
        self.is_joint = any(isinstance(member, JointResizeCrop) for member in self.affine)

    @property
    def is_identity(self) -> bool:
        """Whether images are unchanged and equivalent only to themselves."""
        has_members = bool(self.affine or self.pixels) and self.p_augment > 0
        return not (has_members or self.uses_labels)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augment float images [B, C, H, W] in [0, 1]; the result lies in [0, 1].

        Raises ValueError if a member does not support images of this shape.
        """
        return self._augment(images, generator)[0]

    def jointly(
        self, images: Tensor, targets: Tensor, n_classes: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Augment images [B, C, H, W]; joint members also change the targets, int64 [B]."""
        augmented, matrices = self._augment(images, generator)
        for member, drawn in zip(self.affine, matrices, strict=True):
            if isinstance(member, JointResizeCrop):
                targets = member.relabel(targets, drawn, n_classes, generator)
        return augmented, targets

    def draw_matrices(
        self, images: Tensor, generator: torch.Generator
    ) -> tuple[list[Tensor], Tensor]:
        """Draw matrices [B, 3, 3] for each affine member, and the mask [B] of augmented images.

        The last member is applied first.
        """
        n, _, height, width = images.shape
        is_chained = _draw(self.p_augment, n, generator)
        matrices = []
        for member in self.affine:
            is_applied = self._draw_applied(member, is_chained, generator)[:, None, None]
            drawn = member.sample(n, height, width, generator)
            matrices.append(drawn.where(is_applied, torch.eye(3, device=drawn.device)))
        return matrices, is_chained

    def _augment(
        self, images: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Sequence[Tensor]]:
        matrices, is_chained = self.draw_matrices(images, generator)
        if self.p_augment == 0:
            return images, matrices
        if self.affine:
            crops, moves = [], []
            for member, drawn in zip(self.affine, matrices, strict=True):
                (crops if member.stays_inside else moves).append(drawn)
            mode = "bilinear" if any(isinstance(m, Crop) for m in self.affine) else "nearest"
            images = warp(images, moves, reduce(torch.matmul, crops) if crops else None, mode)
        for member in self.pixels:
            is_applied = self._draw_applied(member, is_chained, generator)
            changed = member.change(images, generator)
            images = torch.where(is_applied[:, None, None, None], changed, images)
        return images, matrices

    def _draw_applied(
        self, member: Member, is_chained: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Draw which images [B] a member transforms; `is_chained` marks augmented images."""
        n = len(is_chained)
        if not member.in_chain:
            is_chained = _draw(self.p_augment, n, generator)
        return is_chained & _draw(member.probability, n, generator)


def _draw(probability: float, n: int, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator, device=generator.device) < probability


def warp(
    images: Tensor, moves: Sequence[Tensor] = (), crops: Tensor | None = None, mode: str = "nearest"
) -> Tensor:
    """Apply moves (the last one first), and then crops, to images [B, C, H, W].

    Moves and crops are matrices [B, 3, 3]; see `affine`. Pixels outside the image are black, and
    content that a move shifts out of the frame is lost. Crops magnify, mirror or rotate part of the
    moved image; at that image's border, the outermost pixels are extended by half a pixel, as in
    torchvision's resize. The mode "nearest", torchvision's default for affine maps, rounds
    positions to whole pixels after each move, but reads pixels only once. "bilinear", for crops,
    interpolates once.
    """
    height, width = images.shape[-2:]
    device = images.device
    # trace each pixel of the result back to the source, beginning with the crops
    x = torch.arange(width, dtype=torch.float32, device=device)
    y = torch.arange(height, dtype=torch.float32, device=device)[:, None]
    if crops is not None:
        x, y = _undo(crops, x, y, height, width)
        x, y = x.clamp_(0, width - 1), y.clamp_(0, height - 1)
    is_seen = None
    for k, move in enumerate(moves):
        if k:  # content that leaves the frame between two moves is lost
            is_inside = _is_inside(x, width).logical_and_(_is_inside(y, height))
            is_seen = is_inside if is_seen is None else is_seen.logical_and_(is_inside)
        x, y = _undo(move, x, y, height, width)
        if mode == "nearest":
            x, y = x.round_(), y.round_()
    # grid_sample expects positions relative to the centre, in units of half a side;
    # interleaving x and y in memory would take longer than sampling
    x, y = ((2 / n) * p + (1 / n - 1) for p, n in ((x, width), (y, height)))
    grid = torch.stack([x, y], dim=1).permute(0, 2, 3, 1)
    result = F.grid_sample(images, grid, mode=mode, padding_mode="zeros", align_corners=False)
    if is_seen is not None:
        result *= is_seen[:, None]
    return result.clamp_(0, 1)  # interpolation has rounding errors


def _is_inside(positions: Tensor, side: int) -> Tensor:
    """Whether positions, in pixels from the centre of the first pixel, lie inside the image."""
    return (positions - (side - 1) / 2).abs_() <= side / 2


def _undo(matrices: Tensor, x: Tensor, y: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Positions [B, H, W] that matrices [B, 3, 3] map to the given positions.

    Positions are relative to the first pixel, and matrices to the image's centre.
    """
    # unlike inv, inv_ex does not synchronise with the device
    inverse = torch.linalg.inv_ex(matrices).inverse[:, :2, :, None, None]
    (xx, xy, x0), (yx, yy, y0) = (row.unbind(1) for row in inverse.unbind(1))
    column, row = (width - 1) / 2, (height - 1) / 2
    x0 = x0 + column - xx * column - xy * row
    y0 = y0 + row - yx * column - yy * row
    return xx * x + (xy * y).add_(x0), yx * x + (yy * y).add_(y0)
