"""MNIST under the affine augmentations that the paper's image experiments start with."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchvision.datasets import MNIST

from utils.data.downloads import open_or_download
from utils.data.in_memory import InMemoryImages


class MNISTDataModule(InMemoryImages):
    """Handwritten digits, 28x28 resized to [1, side, side], 10 classes; 60,000 and 10,000 images.

    Parameters
    ----------
    equivalence : sequence of str
        By default the augmentations of augmented MNIST.
    kwargs
        See `ImageDataModule`.
    """

    kind = "bw_image"
    n_channels = 1
    n_outputs = 10
    class_names = tuple("0123456789")
    SIZES = {"train": 60_000, "test": 10_000}

    def __init__(
        self,
        *,
        side: int = 32,
        equivalence: Sequence[str] = (
            "rotation",
            "x_translation",
            "y_translation",
            "shear",
            "scale",
        ),
        **kwargs: object,
    ) -> None:
        super().__init__(side=side, equivalence=equivalence, **kwargs)

    def load_splits(self) -> dict[str, tuple[Tensor, Tensor]]:
        root = Path(self.data_dir)
        splits = {}
        for split in ("train", "test"):
            images = open_or_download(
                lambda download, split=split: MNIST(root, split == "train", download=download),
                name="MNIST",
                size="12 MB",
                folder=root,
                advice=f"They are the four .gz files of MNIST, in {root}/MNIST/raw.",
            )
            splits[split] = images.data[:, None].to(torch.uint8), images.targets.long()
        return splits
