"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009)."""

from pathlib import Path

import torch
from torch import Tensor
from torchvision import datasets

from utils.data.downloads import open_or_download
from utils.data.in_memory import InMemoryImages


class CIFAR10DataModule(InMemoryImages):
    """Colour photographs of 32x32 in 10 classes; 50,000 and 10,000 images.

    Parameters
    ----------
    kwargs
        See `ImageDataModule`.
    """

    kind = "colour_image"
    n_outputs = 10
    SIZES = {"train": 50_000, "test": 10_000}
    ORIGINAL = datasets.CIFAR10

    def __init__(self, *, side: int = 32, **kwargs: object) -> None:
        super().__init__(side=side, **kwargs)

    def load_splits(self) -> dict[str, tuple[Tensor, Tensor]]:
        root = Path(self.data_dir)
        splits = {}
        for split in ("train", "test"):
            images = open_or_download(
                lambda download, split=split: self.ORIGINAL(
                    root, split == "train", download=download
                ),
                name=self.ORIGINAL.__name__,
                size="170 MB",
                folder=root,
                advice=f"They are in {self.ORIGINAL.filename}, to be put in {root}.",
            )
            self.class_names = tuple(images.classes)
            pixels = torch.from_numpy(images.data).permute(0, 3, 1, 2).contiguous()
            splits[split] = pixels, torch.tensor(images.targets)
        return splits


class CIFAR100DataModule(CIFAR10DataModule):
    """Colour photographs of 32x32 in 100 classes; 50,000 and 10,000 images."""

    n_outputs = 100
    ORIGINAL = datasets.CIFAR100
