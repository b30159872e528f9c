"""MNIST (LeCun, Cortes, Burges 1998), and what has its format."""

from pathlib import Path

from torch import Tensor
from torchvision import datasets

from utils.data.torchvision_images import TorchvisionImages


class MNISTDataModule(TorchvisionImages):
    """Handwritten digits, 28x28 resized to [1, side, side], 10 classes; 60,000 and 10,000 images.

    They are augmented at their own size, and then resized. The other way round, resampling would
    make more pixels gray, which cost bits.

    Parameters
    ----------
    kwargs
        See `ImageDataModule`.
    """

    kind = "bw_image"
    n_channels = 1
    AUGMENT_SIDE = 28
    n_outputs = 10
    class_names = tuple("0123456789")
    SIZES = {"train": 60_000, "test": 10_000}
    ORIGINAL = datasets.MNIST
    DOWNLOAD = "12 MB"
    PARTS = {"train": True, "test": False}

    def advice(self, root: Path) -> str:
        files = ", ".join(name for name, _ in self.ORIGINAL.resources)
        return f"They are in {files}, to be put in {root / self.ORIGINAL.__name__ / 'raw'}."

    def to_tensors(self, images: datasets.MNIST) -> tuple[Tensor, Tensor]:
        return images.data[:, None], images.targets
