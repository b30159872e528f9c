"""Image files that are read during training: Food-101, Cars, Pets, Caltech-101 and ImageNet."""

from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import Caltech101, Food101, OxfordIIITPet, StanfordCars

from lossyless.hub import SourceError
from lossyless.hub.images import ImageFolder
from utils.data import kaggle
from utils.data.downloads import open_or_download
from utils.data.examples import SPLIT_SEED, ImageFiles
from utils.data.images import ImageDataModule
from utils.data.module import DataError
from utils.data.sources import Source, opener

# --- Food-101


def food101(**kwargs: object) -> ImageDataModule:
    """Food-101 (Bossard, Guillaumin, Van Gool 2014): photographs of 101 dishes.

    75,750 training images, some with wrong labels, and 25,250 test images.
    """
    open_set = opener(
        partial(Food101, loader=str),
        {"train": "train", "test": "test"},
        lambda part: ImageFiles.of(part).on_disk(),
        name="Food101",
        size="5.0 GB",
        advice="They are in food-101.tar.gz; unpack it there to get "
        "food-101/{images/<class>/*.jpg,meta/train.json,meta/test.json}.",
    )
    source = Source("Food101", open_set, 101, {"train": 75_750, "test": 25_250})
    return ImageDataModule(source, **kwargs)


# --- Stanford Cars

CARS_MIRROR = "rickyyyyyyy/torchvision-stanford-cars"  # on Kaggle, in torchvision's layout
HOW_TO_RESTORE_CARS = f"""The original server of Stanford Cars (1.9 GB) is offline. Get the files \
from https://www.kaggle.com/datasets/{CARS_MIRROR} or elsewhere and put them in the data folder as \
follows:

    stanford_cars/
        cars_train/00001.jpg ... 08144.jpg
        cars_test/00001.jpg ... 08041.jpg
        cars_test_annos_withlabels.mat
        devkit/cars_meta.mat
        devkit/cars_train_annos.mat"""


def cars196(**kwargs: object) -> ImageDataModule:
    """Stanford Cars (Krause, Stark, Deng, Fei-Fei 2013): photographs of 196 car models.

    8,144 training and 8,041 test images. The original server is offline, so the images are
    downloaded from Kaggle if its client has a token. If not, put them in the data folder by hand.
    """
    source = Source(
        "Cars196",
        opener(
            _cars,
            {"train": "train", "test": "test"},
            lambda part: ImageFiles.of(part).on_disk(),
            name="Cars196",
            size="1.9 GB",
            advice=HOW_TO_RESTORE_CARS,
        ),
        n_outputs=196,
        sizes={"train": 8_144, "test": 8_041},
        how_to_restore=HOW_TO_RESTORE_CARS,
    )
    return ImageDataModule(source, **kwargs)


def _cars(data_dir: Path, split: str, *, download: bool) -> StanfordCars:
    if download:
        kaggle.download_data_set(CARS_MIRROR, data_dir)
    return StanfordCars(data_dir, split, loader=str)


# --- Oxford-IIIT Pet


def pets37(**kwargs: object) -> ImageDataModule:
    """Oxford-IIIT Pet (Parkhi, Vedaldi, Zisserman, Jawahar 2012): 37 cat and dog breeds.

    3,680 training and 3,669 test photographs.
    """
    open_set = opener(
        OxfordIIITPet,
        {"train": "trainval", "test": "test"},
        # indexing `part` would decode the images
        lambda part: ImageFiles(part._images, torch.tensor(part._labels).long()).on_disk(),
        name="OxfordIIITPet",
        size="0.8 GB",
        advice="They are in images.tar.gz and annotations.tar.gz; unpack them in oxford-iiit-pet/ "
        "there to get images/*.jpg, annotations/{trainval,test}.txt.",
    )
    source = Source("Pets37", open_set, 37, sizes={"train": 3_680, "test": 3_669})
    return ImageDataModule(source, **kwargs)


# --- Caltech-101

CALTECH_IMAGES = 9_144
CALTECH_CLASSES = 102
SMALLEST_CLASS = 31  # images in the class inline_skate


def caltech101(*, n_train_per_class: int = 30, **kwargs: object) -> ImageDataModule:
    """Caltech-101 (Fei-Fei, Fergus, Perona 2004): 101 object classes and a background class.

    The 9,144 photographs have no official splits. As in TensorFlow Datasets, which the paper used,
    each class has the same number of training images (3,060 in all), and the rest are for testing
    (6,084). The random split is the same for all seeds and machines, but differs from that of
    TensorFlow Datasets.

    Parameters
    ----------
    n_train_per_class : number of training images per class, before validation images are held out.
    kwargs : see `ImageDataModule`.
    """
    if not 0 < n_train_per_class < SMALLEST_CLASS:
        raise ValueError(
            f"n_train_per_class must lie in [1, {SMALLEST_CLASS - 1}], got {n_train_per_class}: "
            f"the smallest class has {SMALLEST_CLASS} images."
        )
    n_train = CALTECH_CLASSES * n_train_per_class
    source = Source(
        "Caltech101",
        partial(_open_caltech101, n_train_per_class=n_train_per_class),
        n_outputs=CALTECH_CLASSES,
        sizes={"train": n_train, "test": CALTECH_IMAGES - n_train},
    )
    return ImageDataModule(source, **kwargs)


def _open_caltech101(data_dir: Path, n_train_per_class: int) -> dict[str, ImageFiles]:
    folder = data_dir / "caltech101" / "101_ObjectCategories"

    def open_set(download: bool) -> ImageFolder:
        if download:
            Caltech101(data_dir, download=True)
        # torchvision's Caltech101 leaves out the background class
        return ImageFolder(folder, has_classes=True)

    images = open_or_download(
        open_set,
        name="Caltech101",
        size="140 MB",
        folder=data_dir,
        advice=f"They are in 101_ObjectCategories.tar.gz; unpack it in {folder.parent} to get "
        "101_ObjectCategories/<class>/image_*.jpg.",
    )
    files = ImageFiles.of(images.samples)
    is_train = draw_of_each_class(files.targets, n_train_per_class)
    return {
        "train": files.take(is_train.nonzero()[:, 0]),
        "test": files.take((~is_train).nonzero()[:, 0]),
    }


def draw_of_each_class(labels: Tensor, n: int) -> Tensor:
    """Mask [N] of n random examples of each class (all if it has fewer); the same on every call."""
    rng = np.random.RandomState(SPLIT_SEED)  # its stream is frozen, unlike that of newer generators
    mask = torch.zeros(len(labels), dtype=torch.bool)
    for members in (torch.nonzero(labels == c)[:, 0] for c in labels.unique()):
        mask[members[rng.permutation(len(members))[:n]]] = True
    return mask


# --- ImageNet

IMAGENET_FOLDERS = ("imagenet256", "imagenet")  # the first that exists is used
HOW_TO_RESTORE_IMAGENET = """ImageNet (145 GB) cannot be downloaded without an account at \
image-net.org. Put its images in the data folder as follows, with one folder per class (1000 \
folders in train/ and in val/); imagenet256/ is for images whose shorter side was resized to 256 \
pixels:

    imagenet256/ or imagenet/
        train/n01440764/*.JPEG
        train/...
        val/n01440764/*.JPEG
        val/..."""


def imagenet(**kwargs: object) -> ImageDataModule:
    """ImageNet (Deng, Dong, Socher, Li, Li, Fei-Fei 2009), as in ILSVRC 2012-2017: 1000 classes.

    1,281,167 training images. The test split consists of the 50,000 images in val/, because the
    images in test/ have no public labels. Validation images are held out from train/.
    """
    source = Source(
        "ImageNet",
        _open_imagenet,
        n_outputs=1000,
        sizes={"train": 1_281_167, "test": 50_000},
        how_to_restore=HOW_TO_RESTORE_IMAGENET,
    )
    return ImageDataModule(source, **kwargs)


def _open_imagenet(data_dir: Path) -> dict[str, ImageFiles]:
    folders = [data_dir / name for name in IMAGENET_FOLDERS]
    folder = next((folder for folder in folders if folder.is_dir()), folders[-1])
    try:
        train, classes = list_folder((folder / "train").resolve())
        test, test_classes = list_folder((folder / "val").resolve())
    except (OSError, SourceError) as error:
        raise DataError(f"ImageNet: {error}. {HOW_TO_RESTORE_IMAGENET}") from error
    if different := sorted(set(classes) ^ set(test_classes)):
        raise DataError(
            f"ImageNet: {len(different)} classes are in only one of {folder}/train and "
            f"{folder}/val, e.g. {different[0]}. {HOW_TO_RESTORE_IMAGENET}"
        )
    return {"train": train, "test": test}


@cache  # listing a million files takes minutes on a network drive
def list_folder(folder: Path) -> tuple[ImageFiles, tuple[str, ...]]:
    """List the images in <folder>/<class>/ and the classes, both in alphabetical order."""
    images = ImageFolder(folder, has_classes=True)
    return ImageFiles.of(images.samples), tuple(images.classes)
