"""PatchCamelyon (Veeling et al. 2018, https://arxiv.org/abs/1806.03962)."""

import os
from pathlib import Path

import h5py
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import PCAM

from utils.data.downloads import open_or_download
from utils.data.module import DataError
from utils.data.streamed import StreamedImages

# what the files of each split are called
PARTS = {"train": "train", "val": "valid", "test": "test"}
FILE = "camelyonpatch_level_2_split_{part}_{content}.h5"  # content: x images, y labels
# to download, and what becomes of it, which torchvision unpacks in memory
DOWNLOADS = {
    "train": "about 6.5 GB (7.3 GB unpacked)",
    "val": "about 0.8 GB (0.9 GB unpacked)",
    "test": "about 0.8 GB (0.9 GB unpacked)",
}


class PCamDataModule(StreamedImages):
    """Microscope images of lymph nodes, 96x96, with or without tumour; own validation split.

    262,144 training, 32,768 validation and 32,768 test images. The label says whether there is
    tumour in the central 32x32 pixels.

    Parameters
    ----------
    kwargs
        See `StreamedImages`.
    """

    kind = "colour_image"
    n_outputs = 2
    class_names = ("normal", "tumour")
    SIZES = {"train": 262_144, "val": 32_768, "test": 32_768}

    def __init__(self, *, side: int = 96, **kwargs: object) -> None:
        super().__init__(side=side, **kwargs)

    def open_splits(self) -> dict[str, "HDF5Images"]:
        return {split: self._open(split) for split in PARTS}

    def _open(self, split: str) -> "HDF5Images":
        root = Path(self.data_dir)
        images, labels = (
            root / "pcam" / FILE.format(part=PARTS[split], content=content) for content in "xy"
        )
        open_or_download(
            lambda download: PCAM(root, split, download=download),
            name=f"PCam {split}",
            size=DOWNLOADS[split],
            folder=root,
            advice=f"They are {images.name}.gz and {labels.name}.gz of "
            f"https://github.com/basveeling/pcam, to be unpacked (gunzip) in {images.parent}.",
        )
        targets = torch.from_numpy(_read_all(labels, "y").reshape(-1)).long()
        return HDF5Images(images, targets)


class HDF5Images:
    """Images of the dataset "x", uint8 [N, H, W, 3], of an HDF5 file.

    Parameters
    ----------
    path : of the file.
    targets : [N].

    Raises
    ------
    DataError
        If the file is damaged or has not one image for each target.
    """

    def __init__(self, path: Path, targets: Tensor) -> None:
        self.path = path
        self.targets = targets
        self._opened: tuple[int, h5py.File] | None = None
        shape, dtype = _describe(path, "x")
        is_right = len(shape) == 4 and shape[3] == 3 and dtype == np.uint8
        if not is_right or shape[0] != len(targets):
            raise DataError(
                f"{path}: expected images uint8 [{len(targets)}, H, W, 3], as there are "
                f"{len(targets)} labels, found {dtype} {list(shape)}. {_ADVICE}"
            )

    def open(self, i: int) -> Image.Image:
        return Image.fromarray(self._file()["x"][i])

    def name(self, i: int) -> str:
        return f"{i} of {self.path}"

    def _file(self) -> h5py.File:
        """The file, opened by each process for itself: HDF5 does not share handles."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), h5py.File(self.path, "r")
        return self._opened[1]

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_opened": None}  # handles cannot be sent to workers


_ADVICE = "Delete it and run again: it is unpacked, and if need be downloaded, once more."


def _describe(path: Path, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of a dataset in a file."""
    try:
        with h5py.File(path, "r") as file:
            return file[name].shape, file[name].dtype
    except (OSError, KeyError) as error:
        raise DataError(f"{path} is damaged or incomplete: {error}. {_ADVICE}") from error


def _read_all(path: Path, name: str) -> np.ndarray:
    """A whole dataset of a file."""
    try:
        with h5py.File(path, "r") as file:
            return file[name][:]
    except (OSError, KeyError) as error:
        raise DataError(f"{path} is damaged or incomplete: {error}. {_ADVICE}") from error
