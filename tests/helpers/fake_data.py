"""Images of the right shape, made on the spot, in place of data sets that have to be downloaded."""

import importlib
import inspect
import pkgutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from utils import data as data_package
from utils.data.images import ImageDataModule
from utils.data.in_memory import InMemoryImages
from utils.data.streamed import StreamedImages

SIZES = {"train": 8, "val": 4, "test": 4}
# What an experiment must be told of them.
OVERRIDES = [f"{place}.length={SIZES['train']}" for place in ("data_feat", "data_pred")]


def fake_targets(data: ImageDataModule, n: int) -> Tensor:
    if data.task == "regression":
        return torch.rand(n, data.n_outputs)
    return torch.arange(n) % data.n_outputs


class NoiseSource:
    """Images of noise, opened one by one."""

    def __init__(self, data: ImageDataModule, n: int):
        self.targets = fake_targets(data, n)
        self.side = data.shape[-1]

    def open(self, i: int) -> Image.Image:
        pixels = np.random.default_rng(i).integers(0, 256, (self.side, self.side, 3))
        return Image.fromarray(pixels.astype(np.uint8))

    def name(self, i: int) -> str:
        return f"noise {i}"


def _load_splits(data: InMemoryImages) -> dict[str, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return {
        split: (
            torch.randint(0, 256, (n, *data.shape), dtype=torch.uint8, generator=generator),
            fake_targets(data, n),
        )
        for split, n in SIZES.items()
    }


def _open_splits(data: StreamedImages) -> dict[str, NoiseSource]:
    return {split: NoiseSource(data, n) for split, n in SIZES.items()}


def image_data_sets() -> set[type[ImageDataModule]]:
    """Every data set of images that there is a class for."""
    for module in pkgutil.iter_modules(data_package.__path__, f"{data_package.__name__}."):
        importlib.import_module(module.name)
    classes = {ImageDataModule}
    while more := {below for cls in classes for below in cls.__subclasses__()} - classes:
        classes |= more
    return {
        cls
        for cls in classes
        if not inspect.isabstract(cls)
        and cls.__module__.startswith(f"{data_package.__name__}.")  # not those of other tests
    }


def install(monkeypatch: pytest.MonkeyPatch, *classes: type[ImageDataModule]) -> None:
    """Let these data modules give noise instead of reading files."""
    for cls in classes:
        is_streamed = issubclass(cls, StreamedImages)
        name, function = (
            ("open_splits", _open_splits) if is_streamed else ("load_splits", _load_splits)
        )
        monkeypatch.setattr(cls, name, function)
        monkeypatch.setattr(cls, "check_sizes", lambda self, sizes: None)
