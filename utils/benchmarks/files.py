"""Benchmarks of feature files (size and random access), and of compressing images with CLIP."""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import TensorDataset

from lossyless.backbones.clip import import_clip
from lossyless.files import FeatureFile, write_features
from lossyless.hub.clip import ClipCompressor
from lossyless.hub.features import FeatureCompressor
from lossyless.torch_state import drawing_from, one_thread
from utils.benchmarks.bottleneck import make_bottleneck
from utils.benchmarks.coding import WIDTHS
from utils.benchmarks.comparison import Comparison, compare_speed

SIDE, N_IMAGES_AT_ONCE = 224, 32


@one_thread()
def compare(is_quick: bool) -> list[Comparison]:
    """Compare bits per vector in files, including vectors with a larger spread than the prior."""
    bottleneck, n = make_bottleneck(512), 500 if is_quick else 5_000
    compressor, rows = FeatureCompressor(bottleneck.rate), []
    with tempfile.TemporaryDirectory() as folder:
        for width in WIDTHS:
            bits = []
            for file_format in ("container", "official"):
                path, z = Path(folder, file_format), width * bottleneck.draw(n)
                compressor.compress_features(z, path, is_info=False, format=file_format)
                bits.append([8 * path.stat().st_size / n])
            what = f"file of vectors, {width}x"
            rows.append(Comparison(what, "official format", "bit", *bits, high=1.01, n=f"{n:,}"))
    return rows


@one_thread()
def compare_access(is_quick: bool) -> list[Comparison]:
    """Compare vectors read per second, from a file opened for each access and from a cached one."""
    bottleneck, random = make_bottleneck(512), np.random.default_rng(0)
    z = bottleneck.draw(2_000 if is_quick else 20_000)
    selections = {
        "one vector": random.integers(len(z), size=4).tolist(),
        "256 random vectors": [random.integers(len(z), size=256)],
        "slice of 1,024 vectors": [slice(500, 1524)],
    }
    against = {"against": "memory-mapped float16 array", "n_repeats": 1 if is_quick else 7}
    with tempfile.TemporaryDirectory() as folder:
        np.save(npy := Path(folder, "float16.npy"), z.numpy().astype(np.float16))
        path, rows = Path(folder, "features"), []

        def read(selection: object) -> Tensor:
            with FeatureFile(path, bottleneck.rate) as file:
                return file[selection]

        def read_npy(selection: object, array: NDArray | None = None) -> NDArray:
            array = np.load(npy, mmap_mode="r") if array is None else array
            return array[selection].astype(np.float32)

        for chunk_size, is_cached in ((4096, False), (4096, True), (64, False)):
            write_features([z], path, bottleneck.rate, chunk_size=chunk_size, n_workers=1)
            pair: list[Callable] = [read, read_npy]
            if is_cached:
                file = FeatureFile(path, bottleneck.rate)
                file[:]
                pair = [file.__getitem__, partial(read_npy, array=np.load(npy, mmap_mode="r"))]
            for name, chosen in selections.items():
                title = f"{name}, {'cached' if is_cached else f'chunks of {chunk_size:,}'}"
                n = sum(map(len, map(pair[1], chosen))) if name != "one vector" else len(chosen)
                both = [lambda f=f, chosen=chosen: [f(c) for c in chosen] for f in pair]
                rows.append(
                    compare_speed(title, ours=both[0], reference=both[1], sizes=(n, n), **against)
                )
        size, theirs = path.stat().st_size, npy.stat().st_size
        rows.append(
            Comparison("file, chunks of 64", "float16 array", "B", [size], [theirs], high=0.25)
        )
    return rows


def compare_hub(is_quick: bool) -> list[Comparison]:
    """Compare the speed of compressing images, from tensors to a file, to CLIP's encoder alone.

    The encoder is a ViT-B/32 with random weights, which do not affect its speed.
    """
    n_images, n_repeats = (32, 1) if is_quick else (64, 3)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with drawing_from(torch.Generator().manual_seed(0)):
        encoder = import_clip().model.VisionTransformer(SIDE, 32, 768, 12, 12, 512)
    compressor = ClipCompressor(encoder, make_bottleneck(512).rate, transform=None)
    compressor.to(device)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(n_images, 3, SIDE, SIDE, generator=generator)
    dtype = next(compressor.backbone.parameters()).dtype
    options = {"batch_size": N_IMAGES_AT_ONCE, "num_workers": 0}

    def compress(path: str) -> None:
        compressor.compress_dataset(
            TensorDataset(images), path, kwargs_dataloader=options, is_info=False
        )

    @torch.no_grad()
    def encode() -> Tensor:
        batches = images.split(N_IMAGES_AT_ONCE)
        return torch.cat([compressor.backbone(x.to(device, dtype)).float().cpu() for x in batches])

    with tempfile.TemporaryDirectory() as folder:
        row = compare_speed(
            f"compress_dataset: {n_images} images in memory",
            "bare ViT-B/32",
            partial(compress, f"{folder}/images.bin"),
            encode,
            sizes=(n_images, n_images),
            n_repeats=n_repeats,
            low=0.9,
            clock=time.perf_counter,  # a GPU or other processes may do the work
        )
    return [row]
