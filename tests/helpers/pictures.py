"""Small image files."""

from pathlib import Path

import numpy as np
from PIL import Image


def save_noise(path: Path, seed: int, mode: str = "RGB", size: tuple[int, int] = (19, 13)) -> None:
    """Write an image of blurred noise; `size` is (width, height) in pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).convert(mode).save(path)


def save_plain(path: Path, value: int, size: tuple[int, int] = (12, 12)) -> None:
    """Write an image with a single pixel value, which identifies the image after resizing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
