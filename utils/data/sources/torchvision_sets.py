"""Data sets that fit in memory and that torchvision downloads, checks and reads."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torchvision import datasets
from torchvision.datasets import VisionDataset

from utils.data.downloads import open_or_download
from utils.data.examples import InMemory
from utils.data.images import ImageDataModule
from utils.data.sources import Source


def _open(
    data_dir: Path,
    *,
    original: type[VisionDataset],
    size: str,
    parts: dict[str, object],
    to_tensors: Callable[[VisionDataset], tuple[Tensor, Tensor]],
) -> dict[str, InMemory]:
    """Open the splits of a torchvision data set; download them first if they are missing.

    Parameters
    ----------
    original : torchvision's class; its second argument selects the part to read.
    size : size of the download, e.g. "12 MB".
    parts : second argument of `original` for each split.
    to_tensors : returns the images, uint8 [N, C, H, W], and classes, int64 [N], of a part.
    """
    if issubclass(original, datasets.MNIST):
        files = ", ".join(name for name, _ in original.resources)
        folder = data_dir / original.__name__ / "raw"
    else:
        files, folder = original.filename, data_dir

    def open_part(part: object) -> InMemory:
        images = open_or_download(
            lambda download: original(data_dir, part, download=download),
            name=original.__name__,
            size=size,
            folder=data_dir,
            advice=f"They are in {files}, which belong in {folder}.",
        )
        return InMemory(*to_tensors(images))

    return {split: open_part(part) for split, part in parts.items()}


def mnist_tensors(images: datasets.MNIST) -> tuple[Tensor, Tensor]:
    return images.data[:, None], images.targets


def cifar_tensors(images: datasets.CIFAR10) -> tuple[Tensor, Tensor]:
    pixels = torch.from_numpy(images.data).permute(0, 3, 1, 2).contiguous()
    return pixels, torch.tensor(images.targets)


def stl10_tensors(images: datasets.STL10) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(images.data), torch.from_numpy(images.labels).long()


IS_TRAIN = {"train": True, "test": False}


def mnist(**kwargs: object) -> ImageDataModule:
    """MNIST (LeCun, Cortes, Burges 1998): handwritten digits in 10 classes.

    60,000 training and 10,000 test images. They are augmented at their original 28x28 pixels and
    then resized to [1, side, side]. Resizing first would create more gray pixels, which cost bits.
    """
    source = Source(
        "MNIST",
        partial(
            _open, original=datasets.MNIST, size="12 MB", parts=IS_TRAIN, to_tensors=mnist_tensors
        ),
        n_outputs=10,
        sizes={"train": 60_000, "test": 10_000},
        kind="bw_image",
        augment_side=28,
    )
    return ImageDataModule(source, **kwargs)


def cifar10(**kwargs: object) -> ImageDataModule:
    """CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 photographs of 32x32 pixels in 10 classes."""
    return ImageDataModule(_cifar(datasets.CIFAR10, 10), **kwargs)


def cifar100(**kwargs: object) -> ImageDataModule:
    """CIFAR-100 (Krizhevsky 2009): 50,000 + 10,000 photographs of 32x32 pixels in 100 classes."""
    return ImageDataModule(_cifar(datasets.CIFAR100, 100), **kwargs)


def _cifar(original: type[datasets.CIFAR10], n_classes: int) -> Source:
    open_set = partial(
        _open, original=original, size="170 MB", parts=IS_TRAIN, to_tensors=cifar_tensors
    )
    return Source(original.__name__, open_set, n_classes, {"train": 50_000, "test": 10_000})


def stl10(**kwargs: object) -> ImageDataModule:
    """STL-10 (Coates, Ng, Lee 2011): 5,000 + 8,000 photographs of 96x96 pixels in 10 classes."""
    return ImageDataModule(_stl10("STL10", "train", 5_000), **kwargs)


def stl10_unlabeled(**kwargs: object) -> ImageDataModule:
    """The 100,000 unlabelled photographs of STL-10, for training compressors.

    Validation images are held out of them. The targets of both splits are -1, so no probe can be
    trained with the compressor: set `featurizer.kwargs.online=null`.
    """
    source = _stl10("STL10Unlabeled", "unlabeled", 100_000, is_labelled=False)
    return ImageDataModule(source, **kwargs)


def _stl10(name: str, part: str, n_train: int, **facts: object) -> Source:
    parts = {"train": part, "test": "test"}
    open_set = partial(
        _open, original=datasets.STL10, size="2.6 GB", parts=parts, to_tensors=stl10_tensors
    )
    return Source(name, open_set, 10, {"train": n_train, "test": 8_000}, **facts)
