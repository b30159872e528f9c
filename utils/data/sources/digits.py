"""Handwritten digits that ship with scikit-learn: a small substitute for augmented MNIST."""

from functools import partial
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F

from utils.data.examples import InMemory, hold_out
from utils.data.images import ImageDataModule
from utils.data.sources import Source

N_TEST = 400
MAX_INTENSITY = 16  # scikit-learn's images count the set pixels in blocks of 4 x 4


def digits(
    *, side: int = 16, margin: int = 1, val_fraction: float = 200 / 1397, **kwargs: object
) -> ImageDataModule:
    """UCI optical digits: 1797 images in 10 classes, 8x8, resized and padded to [1, side, side].

    The original digits touch the borders of their images. A frame of background, as in MNIST,
    prevents augmentations from cutting digits off.

    The stratified split, the same for all seeds, has 400 test images and (with the default
    val_fraction) 200 validation and 1197 training images.

    Parameters
    ----------
    side : height and width in pixels, including the frame.
    margin : width of the frame in pixels. In MNIST, it is 1/7 of the side.
    val_fraction : fraction of the 1397 non-test images to hold out.
    kwargs : see `ImageDataModule`.
    """
    if side - 2 * margin < 1:
        raise ValueError(f"a margin of {margin} leaves no pixels in images of side {side}")
    source = Source(
        "Digits", partial(_open, side=side, margin=margin), n_outputs=10, kind="bw_image"
    )
    return ImageDataModule(
        source, side=side, base_resize="none", val_fraction=val_fraction, **kwargs
    )


def _open(data_dir: Path, side: int, margin: int) -> dict[str, InMemory]:
    originals = load_digits()
    images = torch.from_numpy(originals.images).float()[:, None] / MAX_INTENSITY
    images = F.interpolate(images, size=side - 2 * margin, mode="bilinear", align_corners=False)
    images = F.pad(images, [margin] * 4)
    images = (images * 255).round().to(torch.uint8)
    labels = torch.from_numpy(originals.target).long()
    train, test = hold_out(labels, N_TEST / len(labels))
    return {
        "train": InMemory(images[train], labels[train]),
        "test": InMemory(images[test], labels[test]),
    }
