"""STL-10 (Coates, Ng, Lee 2011): few labelled and many unlabelled photographs."""

from pathlib import Path

import torch
from torch import Tensor
from torchvision.datasets import STL10

from utils.data.downloads import open_or_download
from utils.data.in_memory import InMemoryImages


class STL10DataModule(InMemoryImages):
    """Colour photographs of 96x96 in 10 classes; 5,000 training and 8,000 test images.

    Parameters
    ----------
    kwargs
        See `ImageDataModule`.
    """

    kind = "colour_image"
    n_outputs = 10
    class_names = (
        "airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck",
    )  # fmt: skip
    SIZES = {"train": 5_000, "test": 8_000}

    def __init__(self, *, side: int = 96, **kwargs: object) -> None:
        super().__init__(side=side, **kwargs)

    def load_splits(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {split: self._load(split) for split in ("train", "test")}

    def _load(self, part: str) -> tuple[Tensor, Tensor]:
        root = Path(self.data_dir)
        images = open_or_download(
            lambda download: STL10(root, part, download=download),
            name="STL10",
            size="2.6 GB",
            folder=root,
            advice=f"They are in {STL10.filename}, to be put in {root}.",
        )
        return torch.from_numpy(images.data), torch.from_numpy(images.labels).long()


class STL10UnlabeledDataModule(STL10DataModule):
    """The 100,000 unlabelled photographs to learn compressors from.

    All labelled training images are for validation. The targets of the training split are -1: no
    probe can be trained beside the compressor (`featurizer.kwargs.online=null`).
    """

    is_labelled = False
    SIZES = {"train": 100_000, "val": 5_000, "test": 8_000}

    def load_splits(self) -> dict[str, tuple[Tensor, Tensor]]:
        parts = {"train": "unlabeled", "val": "train", "test": "test"}
        return {split: self._load(part) for split, part in parts.items()}
