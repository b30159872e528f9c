"""Data sets that fit in memory and that torchvision downloads, checks and reads."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from torch import Tensor
from torchvision.datasets import VisionDataset

from utils.data.downloads import open_or_download
from utils.data.in_memory import InMemoryImages


class TorchvisionImages(InMemoryImages):
    """Images that a class of torchvision downloads, checks and reads.

    Parameters
    ----------
    kwargs
        See `ImageDataModule`.

    Attributes
    ----------
    ORIGINAL : torchvision's class; its second argument says which part is read.
    DOWNLOAD : size of what it downloads, e.g. "12 MB".
    PARTS : for each split what `ORIGINAL` calls it.
    """

    ORIGINAL: ClassVar[type[VisionDataset]]
    DOWNLOAD: ClassVar[str]
    PARTS: ClassVar[Mapping[str, object]]

    def load_splits(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {split: self._load(part) for split, part in self.PARTS.items()}

    def _load(self, part: object) -> tuple[Tensor, Tensor]:
        root = Path(self.data_dir)
        images = open_or_download(
            lambda download: self.ORIGINAL(root, part, download=download),
            name=self.ORIGINAL.__name__,
            size=self.DOWNLOAD,
            folder=root,
            advice=self.advice(root),
        )
        if self.class_names is None:
            self.class_names = tuple(images.classes)
        return self.to_tensors(images)

    def advice(self, root: Path) -> str:
        """Which files have to be put where if they cannot be downloaded."""
        return f"They are in {self.ORIGINAL.filename}, to be put in {root}."

    @abstractmethod
    def to_tensors(self, images: VisionDataset) -> tuple[Tensor, Tensor]:
        """Images uint8 [N, C, H, W] and classes int64 [N] of a part of the data set."""
