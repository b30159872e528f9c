"""Data sets that fit in memory and that torchvision downloads, checks and reads."""

import torch
from torchvision import datasets

from utils.data.examples import InMemory
from utils.data.images import ImageDataModule
from utils.data.sources import Source, opener

IS_TRAIN = {"train": True, "test": False}


def mnist(**kwargs: object) -> ImageDataModule:
    """MNIST (LeCun, Cortes, Burges 1998): handwritten digits in 10 classes.

    60,000 training and 10,000 test images. They are augmented at their original 28x28 pixels and
    then resized to [1, side, side]. Resizing first would create more grey pixels, which cost bits.
    """
    source = Source(
        "MNIST",
        opener(
            datasets.MNIST,
            IS_TRAIN,
            lambda part: InMemory(part.data[:, None], part.targets),
            name="MNIST",
            size="12 MB",
            advice=f"They are {', '.join(name for name, _ in datasets.MNIST.resources)}, which "
            "belong in MNIST/raw there.",
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
    def convert(part: datasets.CIFAR10) -> InMemory:
        pixels = torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous()
        return InMemory(pixels, torch.tensor(part.targets))

    name, advice = original.__name__, f"They are in {original.filename}, which belongs there."
    open_set = opener(original, IS_TRAIN, convert, name=name, size="170 MB", advice=advice)
    return Source(name, open_set, n_classes, {"train": 50_000, "test": 10_000})


def stl10(**kwargs: object) -> ImageDataModule:
    """STL-10 (Coates, Ng, Lee 2011): 5,000 + 8,000 photographs of 96x96 pixels in 10 classes."""
    return ImageDataModule(_stl10("STL10", "train", 5_000), **kwargs)


def stl10_unlabeled(**kwargs: object) -> ImageDataModule:
    """The 100,000 unlabelled STL-10 photographs, for training compressors.

    Validation images are held out from them. All training and validation targets are -1, so no
    probe can be trained with the compressor: set `featurizer.kwargs.online=null`.
    """
    source = _stl10("STL10Unlabeled", "unlabeled", 100_000, is_labelled=False)
    return ImageDataModule(source, **kwargs)


def _stl10(name: str, part: str, n_train: int, **facts: object) -> Source:
    open_set = opener(
        datasets.STL10,
        {"train": part, "test": "test"},
        lambda part: InMemory(torch.from_numpy(part.data), torch.from_numpy(part.labels).long()),
        name="STL10",
        size="2.6 GB",
        advice=f"They are in {datasets.STL10.filename}, which belongs there.",
    )
    return Source(name, open_set, 10, {"train": n_train, "test": 8_000}, **facts)
