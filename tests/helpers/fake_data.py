"""Random images of the right shape, in place of data sets that have to be downloaded."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from utils.data.examples import Images, InMemory
from utils.data.images import ImageDataModule

IN_MEMORY = ("MNIST", "CIFAR10", "CIFAR100", "STL10", "STL10Unlabeled")
SIZES = {"train": 8, "val": 4, "test": 4}
# Settings with which an experiment can use these images.
OVERRIDES = [f"{place}.length={SIZES['train']}" for place in ("data_feat", "data_pred")]


def fake_targets(data: ImageDataModule, n: int) -> Tensor:
    if data.task == "regression":
        return torch.rand(n, data.n_outputs, generator=torch.Generator().manual_seed(n))
    return torch.arange(n) % data.n_outputs


class NoiseSource:
    """Noise images, opened one by one."""

    def __init__(self, data: ImageDataModule, n: int):
        self.targets = fake_targets(data, n)
        self.side = data.shape[-1]

    def open(self, i: int) -> Image.Image:
        pixels = np.random.default_rng(i).integers(0, 256, (self.side, self.side, 3))
        return Image.fromarray(pixels.astype(np.uint8))

    def name(self, i: int) -> str:
        return f"noise {i}"


def open_noise(data: ImageDataModule) -> dict[str, InMemory | Images]:
    """Return noise in place of a source's images."""
    if data.source.name not in IN_MEMORY:
        return {split: NoiseSource(data, n) for split, n in SIZES.items()}
    generator = torch.Generator().manual_seed(0)
    return {
        split: InMemory(
            torch.randint(0, 256, (n, *data.shape), dtype=torch.uint8, generator=generator),
            fake_targets(data, n),
        )
        for split, n in SIZES.items()
    }


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace all image data sets with noise, except the digits, which need no download."""
    original = ImageDataModule.open_source

    def open_source(data: ImageDataModule) -> dict[str, InMemory | Images]:
        return original(data) if data.source.name == "Digits" else open_noise(data)

    monkeypatch.setattr(ImageDataModule, "open_source", open_source)


def install_all(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> None:
    """Like `install`, but also create COCO captions in `data_dir`, with random features."""
    install(monkeypatch)
    save_captions(data_dir / "coco")
    monkeypatch.setattr("utils.data.coco_captions.caption_features", fake_features)


def save_captions(folder: Path) -> None:
    """Write caption files in COCO's layout."""
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
    """Random float16 features [N, dim] in place of CLIP's."""
    generator = torch.Generator().manual_seed(len(captions))
    return torch.randn(len(captions), dim, generator=generator).half()
