"""Real handwritten digits that ship with scikit-learn: a small stand-in for augmented MNIST."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

from utils.data.images import hold_out
from utils.data.in_memory import InMemoryImages

N_TEST = 400
MAX_INTENSITY = 16  # scikit-learn's images count set pixels in blocks of 4 x 4


class DigitsDataModule(InMemoryImages):
    """UCI optical digits: 1797 images of 8x8, resized and framed to [1, side, side], 10 classes.

    The original digits touch the borders of their images; like MNIST's, they get a frame of
    background, so that augmentations move them about rather than cut them off.

    The data set has no split of its own. A stratified one, the same for all seeds, holds 400 test
    images and (with the default val_fraction) 200 validation and 1197 training images.

    Parameters
    ----------
    side : int
        In pixels, frame included.
    margin : int
        Width of the frame in pixels. MNIST's is 1/7 of the side.
    val_fraction : float
        Part of the 1397 images that are not for testing.
    kwargs
        See `ImageDataModule`.
    """

    kind = "bw_image"
    n_channels = 1
    n_outputs = 10
    class_names = tuple("0123456789")

    def __init__(
        self,
        *,
        side: int = 16,
        margin: int = 1,
        val_fraction: float = 200 / 1397,
        **kwargs: object,
    ) -> None:
        super().__init__(side=side, base_resize="none", val_fraction=val_fraction, **kwargs)
        if side - 2 * margin < 1:
            raise ValueError(f"a margin of {margin} leaves nothing of images of side {side}")
        self.margin = margin

    def load_splits(self) -> dict[str, tuple[Tensor, Tensor]]:
        digits = load_digits()
        images = torch.from_numpy(digits.images).float()[:, None] / MAX_INTENSITY
        side = self.shape[-1] - 2 * self.margin
        images = F.interpolate(images, size=side, mode="bilinear", align_corners=False)
        images = F.pad(images, [self.margin] * 4)
        images = (images * 255).round().to(torch.uint8)
        labels = torch.from_numpy(digits.target).long()
        train, test = hold_out(labels, N_TEST / len(labels))
        return {"train": (images[train], labels[train]), "test": (images[test], labels[test])}
