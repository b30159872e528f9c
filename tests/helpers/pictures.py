"""Small image files, made on the spot in the layouts of the original data sets."""

from pathlib import Path

import numpy as np
from PIL import Image

MODES = ("RGB", "L", "CMYK")  # of the JPEG files that occur in data sets of photographs


def save_noise(path: Path, seed: int, mode: str = "RGB", size: tuple[int, int] = (19, 13)) -> None:
    """Write an image of blurred noise; `size` is (width, height) in pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).convert(mode).save(path)


def save_photographs(folder: Path, names: list[str]) -> None:
    """Write JPEG files of odd sizes, among them greyscale and CMYK ones."""
    for i, name in enumerate(names):
        save_noise(folder / name, seed=i, mode=MODES[i % len(MODES)], size=(17 + i % 5, 23 - i % 7))


def save_plain(path: Path, value: int, size: tuple[int, int] = (12, 12)) -> None:
    """Write an image whose pixels all have one value, by which it is known after resizing too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
