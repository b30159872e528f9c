"""Data sets that fit in memory; torchvision downloads, checks and reads them."""

from collections.abc import Callable, Mapping
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


def open_original(
    data_dir: Path,
    *,
    original: type[VisionDataset],
    size: str,
    parts: Mapping[str, object],
    to_tensors: Callable[[VisionDataset], tuple[Tensor, Tensor]],
) -> dict[str, InMemory]:
    """Open the splits of a data set of torchvision; download them first if they are missing.

    Parameters
    ----------
    original : torchvision's class; its second argument selects the part to read.
    size : of the download, e.g. "12 MB".
    parts : second argument of `original` for each split.
    to_tensors : images uint8 [N, C, H, W] and classes int64 [N] of a part.
    """

    def open_part(part: object) -> InMemory:
        images = open_or_download(
            lambda download: original(data_dir, part, download=download),
            name=original.__name__,
            size=size,
            folder=data_dir,
            advice=_advice(original, data_dir),
        )
        return InMemory(*to_tensors(images))

    return {split: open_part(part) for split, part in parts.items()}


def _advice(original: type[VisionDataset], data_dir: Path) -> str:
    """Which files to put where if they cannot be downloaded."""
    if issubclass(original, datasets.MNIST):
        files = ", ".join(name for name, _ in original.resources)
        return f"They are in {files}, to be put in {data_dir / original.__name__ / 'raw'}."
    return f"They are in {original.filename}, to be put in {data_dir}."


def mnist_tensors(images: datasets.MNIST) -> tuple[Tensor, Tensor]:
    return images.data[:, None], images.targets


def cifar_tensors(images: datasets.CIFAR10) -> tuple[Tensor, Tensor]:
    pixels = torch.from_numpy(images.data).permute(0, 3, 1, 2).contiguous()
    return pixels, torch.tensor(images.targets)


def stl10_tensors(images: datasets.STL10) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(images.data), torch.from_numpy(images.labels).long()


def make_source(
    original: type[VisionDataset],
    to_tensors: Callable[[VisionDataset], tuple[Tensor, Tensor]],
    *,
    size: str,
    n_train: int,
    n_test: int,
    n_outputs: int = 10,
    parts: tuple[object, object] = (True, False),
    name: str = "",
    **facts: object,
) -> Source:
    """A source that reads `parts` of a data set of torchvision for training and testing."""
    open_set = partial(
        open_original,
        original=original,
        size=size,
        parts=dict(zip(("train", "test"), parts, strict=True)),
        to_tensors=to_tensors,
    )
    sizes = {"train": n_train, "test": n_test}
    return Source(name or original.__name__, open_set, n_outputs, sizes, **facts)


MNIST = make_source(
    datasets.MNIST,
    mnist_tensors,
    size="12 MB",
    n_train=60_000,
    n_test=10_000,
    kind="bw_image",
    augment_side=28,
)
cifar_source = partial(
    make_source, to_tensors=cifar_tensors, size="170 MB", n_train=50_000, n_test=10_000
)
CIFAR10 = cifar_source(datasets.CIFAR10)
CIFAR100 = cifar_source(datasets.CIFAR100, n_outputs=100)
stl10_source = partial(make_source, datasets.STL10, stl10_tensors, size="2.6 GB", n_test=8_000)
STL10 = stl10_source(n_train=5_000, parts=("train", "test"))
STL10_UNLABELED = stl10_source(
    n_train=100_000, parts=("unlabeled", "test"), name="STL10Unlabeled", is_labelled=False
)


def mnist(**kwargs: object) -> ImageDataModule:
    """MNIST (LeCun, Cortes, Burges 1998): 60,000 and 10,000 handwritten digits, 10 classes.

    The images [1, side, side] are augmented at their original 28x28 and then resized. Resizing
    first would make more pixels gray, which costs bits.
    """
    return ImageDataModule(MNIST, **kwargs)


def cifar10(**kwargs: object) -> ImageDataModule:
    """CIFAR-10 (Krizhevsky 2009): 50,000 and 10,000 photographs of 32x32 in 10 classes."""
    return ImageDataModule(CIFAR10, **kwargs)


def cifar100(**kwargs: object) -> ImageDataModule:
    """CIFAR-100 (Krizhevsky 2009): 50,000 and 10,000 photographs of 32x32 in 100 classes."""
    return ImageDataModule(CIFAR100, **kwargs)


def stl10(**kwargs: object) -> ImageDataModule:
    """STL-10 (Coates, Ng, Lee 2011): 5,000 and 8,000 photographs of 96x96 in 10 classes."""
    return ImageDataModule(STL10, **kwargs)


def stl10_unlabeled(**kwargs: object) -> ImageDataModule:
    """The 100,000 unlabelled photographs of STL-10, to train compressors on.

    Validation images are held out of them. The targets of both splits are -1: no probe can be
    trained with the compressor (`featurizer.kwargs.online=null`).
    """
    return ImageDataModule(STL10_UNLABELED, **kwargs)
