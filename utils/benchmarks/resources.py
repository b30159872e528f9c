"""Benchmarks of start-up time and memory, each measured in a new process."""

import subprocess
import sys
import tempfile
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from lossyless.hub.clip import ClipCompressor
from utils.benchmarks.bottleneck import make_bottleneck
from utils.benchmarks.comparison import Comparison

Z_DIM = 64
# A process inherits its parent's peak memory, so a small launcher starts the measured processes.
LAUNCHER = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-c", sys.argv[1]], check=True, stdout=subprocess.DEVNULL)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
"""
TORCH = "import torch, torchvision"
ALLOWED = 0.5  # additional seconds that importing the CLIP compressor may take


def usage(code: str) -> tuple[float, float]:
    """CPU seconds and peak resident memory (KiB) of a Python process that runs this code."""
    command = [sys.executable, "-c", LAUNCHER, code]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, peak = map(float, run.stdout.split())
    return seconds, peak


def compare_startup(is_quick: bool) -> list[Comparison]:
    """Compare CPU seconds spent on imports and on loading the feature compressor."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "bottleneck.pt")
        torch.save(make_bottleneck(Z_DIM).rate.state_dict(), path)
        load = "from lossyless.hub import feature_compressor; "
        load += f"feature_compressor(pretrained_path={str(path)!r})"
        codes = ("from lossyless.hub import clip_compressor", "import lossyless.hub", load)
        seconds = {code: [] for code in (TORCH, *codes)}
        for _ in range(1 if is_quick else 3):
            for code, found in seconds.items():
                found.append(usage(code)[0])
    ours = [seconds[code] for code in codes]
    reference, more = seconds[TORCH], [s + ALLOWED for s in seconds[TORCH]]
    return [
        Comparison(codes[0], f"{TORCH}, and {ALLOWED} s", "s", ours[0], more, high=1),
        Comparison(codes[1], TORCH, "s", ours[1], reference, high=0.1),
        Comparison("load a bottleneck from a file", TORCH, "s", ours[2], reference),
    ]


def compare_memory(is_quick: bool) -> list[Comparison]:
    """Compare peak memory for different data set sizes, with 256 bytes of features per image."""
    small, *sizes = (1_000, 10_000) if is_quick else (10_000, 100_000, 1_000_000)
    peaks = {}
    with tempfile.TemporaryDirectory() as folder:
        for n in (small, *sizes):
            for function in (compress, decompress):
                call = f"{function.__name__}({n}, {folder!r})"
                peaks[function, n] = usage(f"from {__name__} import *; {call}")[1] * 1024
    return [
        Comparison(
            f"peak memory of {what}",
            f"{small:,} images",
            "B",
            [peaks[function, n]],
            [peaks[function, small]],
            high=1.05,
            n=f"{n:,}",
        )
        for function, what in ((compress, "compress_dataset"), (decompress, "decompress_to_npy"))
        for n in sizes
    ]


class Images(Dataset):
    """n one-pixel images, with labels."""

    def __init__(self, n: int):
        self.n = n
        self.images = torch.randn(4096, 3, 1, 1, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.images[i % len(self.images)], i % 10


def _compressor() -> ClipCompressor:
    """A compressor whose backbone is a linear map."""
    layers = {"conv1": nn.Conv2d(3, Z_DIM, 1, bias=False), "flatten": nn.Flatten(1)}
    backbone = nn.Sequential(OrderedDict(layers))
    backbone.output_dim, backbone.input_resolution = Z_DIM, 1
    return ClipCompressor(backbone, make_bottleneck(Z_DIM).rate, transform=None)


def compress(n: int, folder: str) -> None:
    """Compress n images."""
    options = {"batch_size": 1024, "num_workers": 0}
    path = f"{folder}/{n}.bin"
    _compressor().compress_dataset(
        Images(n), path, kwargs_dataloader=options, is_info=False, labels=True, n_workers=1
    )


def decompress(n: int, folder: str) -> None:
    """Decompress the file that `compress` wrote."""
    paths = (f"{folder}/{n}.bin", f"{folder}/Z.npy")
    _compressor().decompress_to_npy(*paths, is_info=False, n_workers=1)
