"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009)."""

import torch
from torch import Tensor
from torchvision import datasets

from utils.data.torchvision_images import TorchvisionImages


class CIFAR10DataModule(TorchvisionImages):
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
    DOWNLOAD = "170 MB"
    PARTS = {"train": True, "test": False}

    def to_tensors(self, images: datasets.CIFAR10) -> tuple[Tensor, Tensor]:
        pixels = torch.from_numpy(images.data).permute(0, 3, 1, 2).contiguous()
        return pixels, torch.tensor(images.targets)


class CIFAR100DataModule(CIFAR10DataModule):
    """Colour photographs of 32x32 in 100 classes; 50,000 and 10,000 images."""

    n_outputs = 100
    ORIGINAL = datasets.CIFAR100
