"""PatchCamelyon (Veeling et al. 2018, https://arxiv.org/abs/1806.03962)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import PCAM

from utils.data.images import ImageDataModule
from utils.data.module import DataError
from utils.data.sources import Source, opener

SIZES = {"train": 262_144, "val": 32_768, "test": 32_768}


def pcam(**kwargs: object) -> ImageDataModule:
    """PatchCamelyon: microscopy images of lymph nodes, 96x96, with or without tumour tissue.

    262,144 training, 32,768 validation and 32,768 test images. The label says whether the central
    32x32 pixels contain tumour tissue.
    """
    open_set = opener(
        PCAM,
        {split: split for split in SIZES},
        _open_part,
        name="PCam",
        size="8 GB",
        advice="They are camelyonpatch_level_2_split_{train,valid,test}_{x,y}.h5.gz from "
        "https://github.com/basveeling/pcam; unpack them (gunzip) in pcam/ there.",
    )
    return ImageDataModule(Source("PCam", open_set, 2, SIZES), **kwargs)


def _open_part(part: PCAM) -> "HDF5Images":
    images, labels = (part._base_folder / name for name, *_ in part._FILES[part._split].values())
    with _opened(labels, "y") as y:
        targets = torch.from_numpy(y[:].reshape(-1)).long()
    with _opened(images, "x"):  # fails early if the file is damaged
        return HDF5Images(images, targets)


@contextmanager
def _opened(path: Path, name: str) -> Iterator[h5py.Dataset]:
    """Open a dataset in an HDF5 file; raise DataError if the file is damaged."""
    try:
        with h5py.File(path) as file:
            yield file[name]
    except (OSError, KeyError) as error:
        raise DataError(
            f"{path} is damaged or incomplete: {error}. Delete it: the next run unpacks it "
            "again (and, if necessary, downloads it)."
        ) from error


@dataclass(frozen=True)
class HDF5Images:
    """Images in the dataset "x" of an HDF5 file, uint8 [N, H, W, 3], and their targets [N]."""

    path: Path
    targets: Tensor

    def open(self, i: int) -> Image.Image:
        # opening the file each time is cheap, and workers cannot share an open file
        with h5py.File(self.path) as file:
            return Image.fromarray(file["x"][i])

    def name(self, i: int) -> str:
        return f"{i} of {self.path}"
