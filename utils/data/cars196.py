"""Stanford Cars (Krause, Stark, Deng, Fei-Fei 2013)."""

from pathlib import Path

from scipy.io.matlab import MatReadError
from torchvision.datasets import StanfordCars

from utils.data import kaggle
from utils.data.downloads import open_or_download
from utils.data.module import DataError
from utils.data.streamed import ImageFiles, StreamedImages

MIRROR = "rickyyyyyyy/torchvision-stanford-cars"  # Kaggle's data set, in torchvision's layout
# What torchvision raises if files are missing and scipy if they are damaged
UNUSABLE = (OSError, RuntimeError, ValueError, TypeError, LookupError, MatReadError)


class Cars196DataModule(StreamedImages):
    """Photographs of cars of 196 models; 8,144 training and 8,041 test images.

    The original address is gone. They are downloaded from Kaggle where its client has a token;
    otherwise the files have to be put into the data folder by hand.

    Parameters
    ----------
    kwargs
        See `StreamedImages`.
    """

    kind = "colour_image"
    n_outputs = 196
    SIZES = {"train": 8_144, "test": 8_041}
    HOW_TO_RESTORE = f"""Stanford Cars (1.9 GB) has lost its original address. Get its files from \
https://www.kaggle.com/datasets/{MIRROR} or elsewhere and put them in the data folder as follows:

    stanford_cars/
        cars_train/00001.jpg ... 08144.jpg
        cars_test/00001.jpg ... 08041.jpg
        cars_test_annos_withlabels.mat
        devkit/cars_meta.mat
        devkit/cars_train_annos.mat"""

    def open_splits(self) -> dict[str, ImageFiles]:
        self._find()
        return {split: self._list(split) for split in ("train", "test")}

    def _find(self) -> None:
        root = Path(self.data_dir)
        folder = root / "stanford_cars"

        def open_set(download: bool) -> None:
            if download:
                kaggle.download_data_set(MIRROR, root)
            if not folder.is_dir():
                raise FileNotFoundError(f"{folder} is missing")

        advice = self.HOW_TO_RESTORE
        open_or_download(open_set, name="Cars196", size="1.9 GB", folder=root, advice=advice)

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
