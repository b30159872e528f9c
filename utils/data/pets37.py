"""Oxford-IIIT Pet (Parkhi, Vedaldi, Zisserman, Jawahar 2012)."""

from pathlib import Path

from torchvision.datasets import OxfordIIITPet

from utils.data.downloads import open_or_download
from utils.data.streamed import ImageFiles, StreamedImages

PARTS = {"train": "trainval", "test": "test"}  # as the original calls its splits


class Pets37DataModule(StreamedImages):
    """Photographs of cats and dogs of 37 breeds; 3,680 training and 3,669 test images.

    Parameters
    ----------
    kwargs
        See `StreamedImages`.
    """

    kind = "colour_image"
    n_outputs = 37
    SIZES = {"train": 3_680, "test": 3_669}

    def open_splits(self) -> dict[str, ImageFiles]:
        return {split: self._list(part) for split, part in PARTS.items()}

    def _list(self, part: str) -> ImageFiles:
        root = Path(self.data_dir)
        pets = open_or_download(
            lambda download: OxfordIIITPet(root, part, download=download),
            name="OxfordIIITPet",
            size="0.8 GB",
            folder=root,
            advice="They are in images.tar.gz and annotations.tar.gz, to be unpacked in "
            f"{root}/oxford-iiit-pet: images/*.jpg, annotations/{{trainval,test}}.txt.",
        )
        self.class_names = tuple(pets.classes)
        return list_pets(root / "oxford-iiit-pet", part).on_disk()


def list_pets(folder: Path, part: str) -> ImageFiles:
    """What annotations/<part>.txt lists, line by line: name, class from 1, species, breed.

    torchvision's class would decode each image before it tells its class.
    """
    lines = (folder / "annotations" / f"{part}.txt").read_text().splitlines()
    entries = [line.split() for line in lines]
    return ImageFiles.of(
        [(folder / "images" / f"{name}.jpg", int(number) - 1) for name, number, *_ in entries]
    )
