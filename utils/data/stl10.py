"""STL-10 (Coates, Ng, Lee 2011): few labelled and many unlabelled photographs."""

import torch
from torch import Tensor
from torchvision import datasets

from utils.data.torchvision_images import TorchvisionImages


class STL10DataModule(TorchvisionImages):
    """Colour photographs of 96x96 in 10 classes; 5,000 training and 8,000 test images.

    Parameters
    ----------
    kwargs
        See `ImageDataModule`.
    """

    kind = "colour_image"
    n_outputs = 10
    SIZES = {"train": 5_000, "test": 8_000}
    ORIGINAL = datasets.STL10
    DOWNLOAD = "2.6 GB"
    PARTS = {"train": "train", "test": "test"}

    def to_tensors(self, images: datasets.STL10) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(images.data), torch.from_numpy(images.labels).long()


class STL10UnlabeledDataModule(STL10DataModule):
    """The 100,000 unlabelled photographs to learn compressors from.

    Validation images are held out of them. The targets of both are -1: no probe can be trained
    beside the compressor (`featurizer.kwargs.online=null`).
    """

    is_labelled = False
    SIZES = {"train": 100_000, "test": 8_000}
    PARTS = {"train": "unlabeled", "test": "test"}
