"""Stanford Cars (Krause, Stark, Deng, Fei-Fei 2013)."""

from pathlib import Path

from scipy.io.matlab import MatReadError
from torchvision.datasets import StanfordCars

from utils.data.base import DataError
from utils.data.streamed import ImageFiles, StreamedImages

# What torchvision raises if files are missing and scipy if they are damaged
UNUSABLE = (OSError, RuntimeError, ValueError, TypeError, LookupError, MatReadError)


class Cars196DataModule(StreamedImages):
    """Photographs of cars of 196 models; 8,144 training and 8,041 test images.

    The original address is gone: the files have to be put into the data folder by hand.

    Parameters
    ----------
    kwargs
        See `StreamedImages`.
    """

    kind = "colour_image"
    n_outputs = 196
    SIZES = {"train": 8_144, "test": 8_041}
    HOW_TO_RESTORE = """Stanford Cars (1.9 GB) cannot be downloaded from its original address any \
more. Get its files elsewhere and put them in the data folder as follows:

    stanford_cars/
        cars_train/00001.jpg ... 08144.jpg
        cars_test/00001.jpg ... 08041.jpg
        cars_test_annos_withlabels.mat
        devkit/cars_meta.mat
        devkit/cars_train_annos.mat"""

    def open_splits(self) -> dict[str, ImageFiles]:
        return {split: self._list(split) for split in ("train", "test")}

    def _list(self, split: str) -> ImageFiles:
        try:
            cars = StanfordCars(self.data_dir, split, loader=str)
        except UNUSABLE as error:
            raise DataError(
                f"the {split} split of Stanford Cars is missing or damaged in "
                f"{Path(self.data_dir) / 'stanford_cars'}: {str(error).rstrip('.')}. "
                f"{self.HOW_TO_RESTORE}"
            ) from error
        self.class_names = tuple(cars.classes)
        return ImageFiles.of(cars).on_disk()
