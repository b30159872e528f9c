"""Benchmarks of files of features: time and size, against the method of the paper's code.

The reference codes batches with CompressAI, one stream per vector, writes each stream after its
length, and decodes one vector at a time.
"""

import os
import struct
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lossyless.hub.features import FeatureCompressor
from lossyless.hub.official_format import write_official
from lossyless.torch_state import one_thread
from utils.benchmarks.bottleneck import Bottleneck, PerVectorCoder, load_released
from utils.benchmarks.comparison import Comparison, Goal, alternate

BATCH_SIZE = 128  # of the paper's code
UINT32 = struct.Struct(">I")


def compare(is_quick: bool) -> list[Comparison]:
    """Throughput with one and two processes, and file sizes."""
    bottleneck = load_released()
    n, n_reference, n_repeats = (2_000, 10, 2) if is_quick else (20_000, 250, 5)
    with tempfile.TemporaryDirectory() as folder:
        with one_thread():
            rows = _compare_speed(bottleneck, Path(folder), n, n_reference, n_repeats)
            if len(os.sched_getaffinity(0)) > 1:
                n_parallel = 4_000 if is_quick else 100_000
                rows += _compare_workers(bottleneck, Path(folder), n_parallel, n_repeats)
        return rows + _compare_sizes(bottleneck, Path(folder), 5_000 if is_quick else 10_000)


class OfficialFile:
    """Writes and reads a set of vectors as the paper's code does."""

    def __init__(self, coder: PerVectorCoder):
        self.coder = coder

    def write(self, z: Tensor, path: Path) -> None:
        write_official(path, (s for batch in z.split(BATCH_SIZE) for s in self.coder.encode(batch)))

    def read(self, path: Path) -> Tensor:
        return torch.cat([self.coder.decode([stream]) for stream in self._streams(path)])

    def _streams(self, path: Path) -> Iterator[bytes]:
        with path.open("rb") as file:
            (n,) = UINT32.unpack(file.read(UINT32.size))
            for _ in range(n):
                (length,) = UINT32.unpack(file.read(UINT32.size))
                yield file.read(length)


def _compare_speed(
    bottleneck: Bottleneck, folder: Path, n: int, n_reference: int, n_repeats: int
) -> list[Comparison]:
    """Vectors per second from memory to disk and back on one core, including checksums."""
    compressor = FeatureCompressor(bottleneck.rate)
    official = OfficialFile(bottleneck.reference)
    _, z = bottleneck.draw(n)
    few = z[:n_reference]
    path, theirs = folder / "features.bin", folder / "official.bin"

    def compress() -> None:
        compressor.compress_features(z, path, is_info=False, n_workers=1)

    def decompress() -> np.ndarray:
        return compressor.decompress_dataset(path, is_info=False, n_workers=1)

    writing = alternate(compress, lambda: official.write(few, theirs), n_repeats)
    reading = alternate(decompress, lambda: official.read(theirs), n_repeats)
    expected = official.read(theirs)
    if not np.allclose(decompress()[:n_reference], expected, rtol=1e-5, atol=1e-5):
        raise AssertionError("the two files decode to different vectors")
    return [
        Comparison(
            f"{action}: {n:,} vectors, {bottleneck.name}",
            "the paper's code",
            "/s",
            [n / s for s in ours],
            [n_reference / s for s in reference],
            Goal(low=goal),
        )
        for action, (ours, reference), goal in (
            ("compress_features", writing, 40),
            ("decompress_dataset", reading, 25),
        )
    ]


def _compare_workers(
    bottleneck: Bottleneck, folder: Path, n: int, n_repeats: int
) -> list[Comparison]:
    """Entropy coding in two processes, against one."""
    compressor = FeatureCompressor(bottleneck.rate)
    _, z = bottleneck.draw(n)
    path = folder / "parallel.bin"

    def compress(n_workers: int) -> None:
        compressor.compress_features(z, path, is_info=False, n_workers=n_workers)

    def decompress(n_workers: int) -> None:
        compressor.decompress_dataset(path, is_info=False, n_workers=n_workers)

    rows = []
    for function in (compress, decompress):
        two, one = alternate(partial(function, 2), partial(function, 1), n_repeats)
        rows.append(
            Comparison(
                f"{function.__name__} {n:,} with 2 processes",
                "1 process",
                "/s",
                [n / s for s in two],
                [n / s for s in one],
                Goal(low=1),
            )
        )
    return rows


def _compare_sizes(bottleneck: Bottleneck, folder: Path, n: int) -> list[Comparison]:
    """Bits per vector of files of `n` vectors, including headers."""
    compressor = FeatureCompressor(bottleneck.rate)
    symbols, z = bottleneck.draw(n)
    entropy = bottleneck.rate.coder().information(symbols).sum() / n

    def n_bits(file_format: str) -> float:
        path = folder / f"{file_format}.bin"
        compressor.compress_features(z, path, is_info=False, format=file_format)
        return 8 * path.stat().st_size / n

    ours, what = n_bits("container"), f"file of {n:,} vectors"
    return [
        Comparison(what, "cross-entropy", "bit", [ours], [entropy], Goal(high=1.01)),
        Comparison(what, "official format", "bit", [ours], [n_bits("official")], Goal(high=0.97)),
    ]
