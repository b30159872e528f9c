"""Caltech-101 (Fei-Fei, Fergus, Perona 2004)."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import Caltech101, ImageFolder

from utils.data.downloads import open_or_download
from utils.data.images import SPLIT_SEED
from utils.data.streamed import ImageFiles, StreamedImages

N_IMAGES = 9_144
SMALLEST_CLASS = 31  # images of inline_skate


class Caltech101DataModule(StreamedImages):
    """Photographs of 101 kinds of objects and a class of backgrounds; 102 classes, 9,144 images.

    The original has no splits. As in TensorFlow Datasets, whose version the paper used, the same
    number of images of each class is for training (3,060 in all) and the rest for testing (6,084).
    Which ones is drawn once, the same for all seeds and machines; they are not those of TensorFlow
    Datasets.

    Parameters
    ----------
    n_train_per_class : int
        Training images of each class, before hold-out; at least one must be left for testing.
    kwargs
        See `StreamedImages`.
    """

    kind = "colour_image"
    n_outputs = 102

    def __init__(self, *, n_train_per_class: int = 30, **kwargs: object) -> None:
        super().__init__(**kwargs)
        if not 0 < n_train_per_class < SMALLEST_CLASS:
            raise ValueError(
                f"n_train_per_class must lie in [1, {SMALLEST_CLASS - 1}], got "
                f"{n_train_per_class}: the smallest class has {SMALLEST_CLASS} images."
            )
        self.n_train_per_class = n_train_per_class
        n_train = self.n_outputs * n_train_per_class
        self.SIZES = {"train": n_train, "test": N_IMAGES - n_train}

    def open_splits(self) -> dict[str, ImageFiles]:
        root = Path(self.data_dir)
        folder = root / "caltech101" / "101_ObjectCategories"

        def open_set(download: bool) -> ImageFolder:
            if download:
                Caltech101(root, download=True)
            # torchvision's Caltech101 leaves out the backgrounds
            return ImageFolder(folder)

        images = open_or_download(
            open_set,
            name="Caltech101",
            size="140 MB",
            folder=root,
            advice=f"They are in 101_ObjectCategories.tar.gz, to be unpacked in {folder.parent}: "
            "101_ObjectCategories/<class>/image_*.jpg.",
        )
        self.class_names = tuple(images.classes)
        files = ImageFiles.of(images.samples)
        for_training = draw_of_each_class(files.targets, self.n_train_per_class)
        return {
            "train": files.take(for_training.nonzero()[:, 0]),
            "test": files.take((~for_training).nonzero()[:, 0]),
        }


def draw_of_each_class(labels: Tensor, n: int) -> Tensor:
    """Mask [N] of n examples of each class, or all if it has fewer; the same ones every time."""
    rng = np.random.RandomState(SPLIT_SEED)  # whose stream never changes, unlike newer generators
    mask = torch.zeros(len(labels), dtype=torch.bool)
    for members in (torch.nonzero(labels == c)[:, 0] for c in labels.unique()):
        mask[members[rng.permutation(len(members))[:n]]] = True
    return mask
