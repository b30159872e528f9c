"""Benchmark of compressing images with CLIP, against its image encoder alone.

The encoder is a ViT-B/32 with random weights, since its speed does not depend on them.
"""

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from lossyless.backbones.clip import import_clip
from lossyless.hub.clip import ClipCompressor
from utils.benchmarks.bottleneck import make_bottleneck
from utils.benchmarks.comparison import Comparison, Goal, alternate

SIDE = 224
BATCH_SIZE = 32


def compare(is_quick: bool) -> list[Comparison]:
    """Images per second, from tensors in memory to a file on disk."""
    n_images, n_repeats = (32, 1) if is_quick else (256, 3)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rate = make_bottleneck(512).rate
    compressor = ClipCompressor(_image_encoder(), rate, transform=_no_transform).to(device)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(n_images, 3, SIDE, SIDE, generator=generator)
    dtype = next(compressor.backbone.parameters()).dtype

    @torch.no_grad()
    def encode() -> Tensor:
        batches = images.split(BATCH_SIZE)
        return torch.cat([compressor.backbone(x.to(device, dtype)).float().cpu() for x in batches])

    with tempfile.TemporaryDirectory() as folder:
        ours, alone = alternate(
            lambda: compressor.compress_dataset(
                TensorDataset(images),
                Path(folder, "images.bin"),
                kwargs_dataloader={"batch_size": BATCH_SIZE, "num_workers": 0},
                is_info=False,
            ),
            encode,
            n_repeats,
        )
    return [
        Comparison(
            f"compress_dataset: {n_images} images in memory",
            "bare ViT-B/32",
            "/s",
            [n_images / s for s in ours],
            [n_images / s for s in alone],
            Goal(low=0.9),
        )
    ]


def _image_encoder() -> nn.Module:
    """CLIP's ViT-B/32 image encoder; the model is built with a tiny text encoder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = import_clip().model.CLIP(
            embed_dim=512,
            image_resolution=SIDE,
            vision_layers=12,
            vision_width=768,
            vision_patch_size=32,
            context_length=4,
            vocab_size=8,
            transformer_width=64,
            transformer_heads=1,
            transformer_layers=1,
        )
    return model.visual


def _no_transform(image: object) -> Tensor:
    raise TypeError(f"the benchmark's images are tensors, found {type(image).__name__}")
