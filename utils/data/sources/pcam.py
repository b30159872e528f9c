"""PatchCamelyon (Veeling et al. 2018, https://arxiv.org/abs/1806.03962)."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import h5py
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import PCAM

from utils.data.downloads import open_or_download
from utils.data.images import ImageDataModule
from utils.data.module import DataError
from utils.data.sources import Source

T = TypeVar("T")
# names of the splits in the names of their files
PARTS = {"train": "train", "val": "valid", "test": "test"}
FILE = "camelyonpatch_level_2_split_{part}_{content}.h5"  # content: x images, y labels
# torchvision unpacks the downloads in memory
DOWNLOADS = {
    "train": "about 6.5 GB (7.3 GB unpacked)",
    "val": "about 0.8 GB (0.9 GB unpacked)",
    "test": "about 0.8 GB (0.9 GB unpacked)",
}
ADVICE = "Delete it and run again to unpack it, and if necessary download it, once more."


def pcam(*, side: int = 96, **kwargs: object) -> ImageDataModule:
    """PatchCamelyon: microscope images of lymph nodes, 96x96, with or without tumour.

    262,144 training, 32,768 validation and 32,768 test images. The label says whether the central
    32x32 pixels show tumour.
    """
    return ImageDataModule(PCAM_SOURCE, side=side, **kwargs)


def _open(data_dir: Path) -> dict[str, "HDF5Images"]:
    return {split: _open_split(data_dir, split) for split in PARTS}


def _open_split(data_dir: Path, split: str) -> "HDF5Images":
    images, labels = (
        data_dir / "pcam" / FILE.format(part=PARTS[split], content=content) for content in "xy"
    )
    open_or_download(
        lambda download: PCAM(data_dir, split, download=download),
        name=f"PCam {split}",
        size=DOWNLOADS[split],
        folder=data_dir,
        advice=f"They are {images.name}.gz and {labels.name}.gz of "
        f"https://github.com/basveeling/pcam, to be unpacked (gunzip) in {images.parent}.",
    )
    targets = torch.from_numpy(_read(labels, "y", lambda y: y[:]).reshape(-1)).long()
    return HDF5Images(images, targets)


PCAM_SOURCE = Source(
    "PCam",
    _open,
    n_outputs=2,
    sizes={"train": 262_144, "val": 32_768, "test": 32_768},
)


class HDF5Images:
    """Images of the dataset "x", uint8 [N, H, W, 3], of an HDF5 file.

    Parameters
    ----------
    path : of the file.
    targets : [N].

    Raises
    ------
    DataError
        If the file is damaged or does not have one image for each target.
    """

    def __init__(self, path: Path, targets: Tensor) -> None:
        self.path = path
        self.targets = targets
        self._opened: tuple[int, h5py.File] | None = None
        shape, dtype = _read(path, "x", lambda x: (x.shape, x.dtype))
        is_right = len(shape) == 4 and shape[3] == 3 and dtype == np.uint8
        if not is_right or shape[0] != len(targets):
            raise DataError(
                f"{path}: expected uint8 [{len(targets)}, H, W, 3] for its {len(targets)} labels, "
                f"found {dtype} {list(shape)}. {ADVICE}"
            )

    def open(self, i: int) -> Image.Image:
        return Image.fromarray(self._file()["x"][i])

    def name(self, i: int) -> str:
        return f"{i} of {self.path}"

    def _file(self) -> h5py.File:
        """The file, opened once in each process: HDF5 does not share handles."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), h5py.File(self.path, "r")
        return self._opened[1]

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_opened": None}  # handles cannot be sent to workers


def _read(path: Path, name: str, read: Callable[[h5py.Dataset], T]) -> T:
    """What `read` takes from a dataset of a file."""
    try:
        with h5py.File(path, "r") as file:
            return read(file[name])
    except (OSError, KeyError) as error:
        raise DataError(f"{path} is damaged or incomplete: {error}. {ADVICE}") from error
