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
PARTS = {"train": "train", "val": "valid", "test": "test"}  # names of the splits in file names
FILE = "camelyonpatch_level_2_split_{part}_{content}.h5"  # content: x images, y labels
DOWNLOADS = {
    "train": "about 6.5 GB (7.3 GB unpacked)",
    "val": "about 0.8 GB (0.9 GB unpacked)",
    "test": "about 0.8 GB (0.9 GB unpacked)",
}
SIZES = {"train": 262_144, "val": 32_768, "test": 32_768}
ADVICE = "Delete it and run again to unpack it (and, if necessary, download it) again."


def pcam(*, side: int = 96, **kwargs: object) -> ImageDataModule:
    """PatchCamelyon: microscope images of lymph nodes, 96x96, with or without tumour.

    262,144 training, 32,768 validation and 32,768 test images. The label says whether the central
    32x32 pixels contain tumour tissue.
    """
    return ImageDataModule(Source("PCam", _open, 2, SIZES), side=side, **kwargs)


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
        advice=f"They are {images.name}.gz and {labels.name}.gz from "
        f"https://github.com/basveeling/pcam; unpack them (gunzip) in {images.parent}.",
    )
    targets = torch.from_numpy(_read(labels, "y", lambda y: y[:]).reshape(-1)).long()
    shape, dtype = _read(images, "x", lambda x: (x.shape, x.dtype))
    if shape[:1] != (len(targets),) or shape[3:] != (3,) or dtype != np.uint8:
        raise DataError(
            f"{images}: expected uint8 [{len(targets)}, H, W, 3] for its {len(targets)} labels, "
            f"found {dtype} {list(shape)}. {ADVICE}"
        )
    return HDF5Images(images, targets)


def _read(path: Path, name: str, read: Callable[[h5py.Dataset], T]) -> T:
    """Apply `read` to a dataset in a file; raise DataError if the file is damaged."""
    try:
        with h5py.File(path, "r") as file:
            return read(file[name])
    except (OSError, KeyError) as error:
        raise DataError(f"{path} is damaged or incomplete: {error}. {ADVICE}") from error


class HDF5Images:
    """Images in the dataset "x" of an HDF5 file, uint8 [N, H, W, 3], and their targets [N]."""

    def __init__(self, path: Path, targets: Tensor) -> None:
        self.path = path
        self.targets = targets
        self._opened: tuple[int, h5py.File] | None = None

    def open(self, i: int) -> Image.Image:
        if self._opened is None or self._opened[0] != os.getpid():  # handles cannot be shared
            self._opened = os.getpid(), h5py.File(self.path, "r")
        return Image.fromarray(self._opened[1]["x"][i])

    def name(self, i: int) -> str:
        return f"{i} of {self.path}"

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_opened": None}  # handles cannot be sent to workers
