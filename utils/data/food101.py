"""Food-101 (Bossard, Guillaumin, Van Gool 2014)."""

from pathlib import Path

from torchvision.datasets import Food101

from utils.data.downloads import open_or_download
from utils.data.streamed import ImageFiles, StreamedImages


class Food101DataModule(StreamedImages):
    """Photographs of 101 dishes; 75,750 training images with some wrong labels, 25,250 test images.

    Parameters
    ----------
    kwargs
        See `StreamedImages`.
    """

    kind = "colour_image"
    n_outputs = 101
    SIZES = {"train": 75_750, "test": 25_250}

    def open_splits(self) -> dict[str, ImageFiles]:
        return {split: self._list(split) for split in ("train", "test")}

    def _list(self, split: str) -> ImageFiles:
        root = Path(self.data_dir)
        images = open_or_download(
            lambda download: Food101(root, split, download=download, loader=str),
            name="Food101",
            size="5.0 GB",
            folder=root,
            advice=f"They are in food-101.tar.gz, to be unpacked in {root}: "
            "food-101/{images/<class>/*.jpg,meta/train.json,meta/test.json}.",
        )
        self.class_names = tuple(images.classes)
        return ImageFiles.of(images).on_disk()
