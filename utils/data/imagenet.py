"""ImageNet (Deng, Dong, Socher, Li, Li, Fei-Fei 2009), as in ILSVRC 2012-2017."""

from functools import cache
from pathlib import Path

from torchvision.datasets import ImageFolder

from utils.data.module import DataError
from utils.data.streamed import ImageFiles, StreamedImages

FOLDERS = ("imagenet256", "imagenet")  # the first that is there; the former has smaller images


class ImageNetDataModule(StreamedImages):
    """Photographs of 1000 classes; 1,281,167 training images and 50,000 test images.

    The images of val/ are the test split, those of test/ have no public labels. Validation images
    are held out of train/.

    Parameters
    ----------
    kwargs
        See `StreamedImages`.
    """

    kind = "colour_image"
    n_outputs = 1000
    SIZES = {"train": 1_281_167, "test": 50_000}
    HOW_TO_RESTORE = """ImageNet (145 GB) cannot be downloaded without an account at \
image-net.org. Put its images in the data folder as follows, in a folder of each of the 1000 \
classes (val/ too); imagenet256/ may hold them with the shorter side resized to 256 pixels:

    imagenet256/ or imagenet/
        train/n01440764/*.JPEG
        train/...
        val/n01440764/*.JPEG
        val/..."""

    def open_splits(self) -> dict[str, ImageFiles]:
        folder = self._folder()
        try:
            train, test = (list_folder((folder / name).resolve()) for name in ("train", "val"))
        except OSError as error:
            raise DataError(f"ImageNet: {error}. {self.HOW_TO_RESTORE}") from error
        (train_files, classes), (test_files, test_classes) = train, test
        if different := sorted(set(classes) ^ set(test_classes)):
            raise DataError(
                f"ImageNet: {len(different)} classes are in only one of {folder}/train and "
                f"{folder}/val, e.g. {different[0]}. {self.HOW_TO_RESTORE}"
            )
        self.class_names = classes
        return {"train": train_files, "test": test_files}

    def _folder(self) -> Path:
        folders = [Path(self.data_dir) / name for name in FOLDERS]
        for folder in folders:
            if folder.is_dir():
                return folder
        raise DataError(
            f"ImageNet is neither in {' nor in '.join(map(str, folders))}. {self.HOW_TO_RESTORE}"
        )


@cache  # listing a million files takes minutes on a network drive
def list_folder(folder: Path) -> tuple[ImageFiles, tuple[str, ...]]:
    """The images of <folder>/<class>/ and the classes, both in alphabetical order."""
    images = ImageFolder(folder)
    return ImageFiles.of(images.samples), tuple(images.classes)
