"""A CLIP checkpoint and a bottleneck with random weights.

The network is like CLIP's ViT-B/32, with 512-dimensional features, but small enough for tests.
To try the hub without a download: `python tests/helpers/tiny_clip.py clip.pt bottleneck.pt`.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from lossyless.backbones.clip import import_clip
from lossyless.rates import HFactorized

Z_DIM = 512
SIDE = 32


def save_clip(path: Path, *, side: int = SIDE, z_dim: int = Z_DIM, seed: int = 0) -> Path:
    """Save a one-layer vision transformer as a state dict that `clip.load` accepts."""
    with _seeded(seed):
        model = import_clip().model.CLIP(
            embed_dim=z_dim,
            image_resolution=side,
            vision_layers=1,
            vision_width=64,
            vision_patch_size=8,
            context_length=4,
            vocab_size=8,
            transformer_width=64,
            transformer_heads=1,
            transformer_layers=1,
        )
    torch.save(model.state_dict(), path)
    return path


def save_bottleneck(path: Path, *, z_dim: int = Z_DIM, seed: int = 0) -> Path:
    """Save the state dict of an untrained bottleneck: broad priors, cells of width 1 / e."""
    with _seeded(seed):
        rate = HFactorized(z_dim)
    torch.save(rate.state_dict(), path)
    return path


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global random state for initialisation; restore it afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


if __name__ == "__main__":
    save_clip(Path(sys.argv[1]))
    save_bottleneck(Path(sys.argv[2]))
    print(f"wrote {sys.argv[1]}, a random CLIP, and {sys.argv[2]}, a random bottleneck")
