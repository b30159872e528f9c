"""Images of the right shape, made on the spot, in place of data sets that have to be downloaded."""

import importlib
import inspect
import json
import pkgutil
from pathlib import Path

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
        return torch.rand(n, data.n_outputs, generator=torch.Generator().manual_seed(n))
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


def install_all(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> None:
    """Noise in place of all data sets but the digits; captions of COCO in `data_dir`."""
    install(
        monkeypatch,
        *(cls for cls in image_data_sets() if cls.__name__ != "DigitsDataModule"),
    )
    save_captions(data_dir / "coco")
    monkeypatch.setattr("utils.data.coco.caption_features", fake_features)


def save_captions(folder: Path) -> None:
    """Write files of captions in the layout of COCO."""
    (folder / "annotations").mkdir(parents=True)
    for year, n in (("train2017", 40), ("val2017", 12)):
        images = [{"id": i, "file_name": f"{i:012d}.jpg"} for i in reversed(range(n))]
        captions = [
            {"id": 10 * i + k, "image_id": i, "caption": f"photo {k} of {i} in {year}"}
            for i in range(n)
            for k in range(1 + i % 5)
        ]
        path = folder / "annotations" / f"captions_{year}.json"
        path.write_text(json.dumps({"images": images, "annotations": captions}))


def fake_features(captions: list[str], *, weights: str, dim: int, folder: Path) -> Tensor:
    """Random features float16 [N, dim] in place of CLIP's."""
    generator = torch.Generator().manual_seed(len(captions))
    return torch.randn(len(captions), dim, generator=generator).half()
