"""A tiny CLIP with a bottleneck, and pictures to compress."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_clip import Z_DIM
from PIL import Image

from lossyless.hub import ClipCompressor, FeatureCompressor, clip_compressor, feature_compressor


@pytest.fixture(scope="session")
def compressor(weights) -> ClipCompressor:
    return clip_compressor("b005", device="cpu", **weights)[0]


@pytest.fixture(scope="session")
def decoder(weights) -> FeatureCompressor:
    return feature_compressor(pretrained_path=weights["pretrained_path"])


@pytest.fixture(scope="session")
def z() -> torch.Tensor:
    """Features [500, z_dim]."""
    return 2 * torch.randn(500, Z_DIM, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Ten pictures of several sizes and modes."""
    rng = np.random.default_rng(0)
    modes = ("RGB", "L", "P", "RGBA")
    return [
        Image.fromarray(rng.integers(0, 256, (30 + i, 50 - i, 3), np.uint8)).convert(modes[i % 4])
        for i in range(10)
    ]


@pytest.fixture(scope="session")
def X(compressor, pictures) -> torch.Tensor:
    """The pictures as compressor inputs."""
    return torch.stack([compressor.transform(picture) for picture in pictures])


@pytest.fixture
def folder(tmp_path, pictures) -> Path:
    """The pictures as files in nested folders of two classes."""
    for i, picture in enumerate(pictures):
        path = tmp_path / "photos" / ("cat", "dog")[i % 2] / ("", "old")[i % 3 == 0] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    return tmp_path / "photos"
