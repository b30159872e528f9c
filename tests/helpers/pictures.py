"""Small images, in memory and in files."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor


def save_noise(path: Path, seed: int, mode: str = "RGB", size: tuple[int, int] = (19, 13)) -> None:
    """Write an image of blurred noise; `size` is (width, height) in pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).convert(mode).save(path)


def save_plain(path: Path, value: int, size: tuple[int, int] = (12, 12)) -> None:
    """Write an image with a single pixel value, which identifies the image after resizing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)


def digits(n_channels: int, n: int = 6, side: int = 32) -> Tensor:
    """Digits [n, C, side, side] in [0, 1], with 256 levels; channels are shifted copies."""
    grey = torch.from_numpy(load_digits().images[:n]).float()[:, None] / 16
    grey = torch.nn.functional.interpolate(grey, size=(side, side), mode="bilinear")
    planes = [grey.roll(4 * channel, dims=-1) for channel in range(n_channels)]
    return (torch.cat(planes, dim=1).clamp(0, 1) * 255).round() / 255
