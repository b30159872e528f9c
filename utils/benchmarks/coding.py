"""Benchmarks of entropy coding: our long streams against one CompressAI stream per vector.

CompressAI converts its tables to Python lists for every vector, which takes most of its time at 512
dimensions.
"""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lossyless.hub.official_format import OfficialCoder
from lossyless.torch_state import one_thread
from utils.benchmarks.bottleneck import Bottleneck, load_released, make_bottleneck
from utils.benchmarks.comparison import Comparison, compare_speed
from utils.benchmarks.training import SMALL, banana_config, short_trainer
from utils.evaluation import communication
from utils.training import building, fitting

CHUNK_SIZE = 4096
# Factors by which features are scaled; 1 is the training scale.
WIDTHS = (1, 2, 3, 4, 5, 8, 32, 1000)


@one_thread()
def compare(is_quick: bool) -> list[Comparison]:
    """Vectors per second on one core, in 2 (Banana) and 512 (CLIP) dimensions, and file sizes."""
    small, large = make_bottleneck(2), load_released()
    if is_quick:
        rows = _compare_streams(small, (20_000, 500), 2, goals=(50, 25))
        rows += _compare_streams(large, (1_000, 10), 2, goals=(70, 35))
        rows += _compare_official(large, (50, 10), 2)
    else:
        rows = _compare_streams(small, (100_000, 2_000), 7, goals=(50, 25))
        rows += _compare_streams(large, (20_000, 200), 5, goals=(70, 35))
        rows += _compare_official(large, (2_000, 200), 5)
    return rows + _compare_wide(large, 500 if is_quick else CHUNK_SIZE)


def _compare_streams(
    bottleneck: Bottleneck, sizes: tuple[int, int], n_repeats: int, goals: tuple[float, float]
) -> list[Comparison]:
    """Code symbols to bytes and back; CompressAI also rounds the vectors."""
    rate, coder = bottleneck.rate, bottleneck.rate.coder()
    symbols, z = bottleneck.draw(sizes[0])
    chunks = np.split(symbols, range(CHUNK_SIZE, len(symbols), CHUNK_SIZE))
    payloads = [coder.encode(chunk) for chunk in chunks]

    def decode() -> list[np.ndarray]:
        return [coder.decode(p, len(c)) for p, c in zip(payloads, chunks, strict=True)]

    what = f"{len(z):,} vectors of {rate.z_dim} ({bottleneck.name})"
    ours = {
        f"encode {what}": lambda: [coder.encode(chunk) for chunk in chunks],
        f"decode {what}": decode,
    }
    z_hat = rate.dequantise(decode()[0])
    return _compare_coders(bottleneck, ours, z, z_hat, sizes[1], n_repeats, goals)


def _compare_official(
    bottleneck: Bottleneck, sizes: tuple[int, int], n_repeats: int
) -> list[Comparison]:
    """The official format: CompressAI's streams, byte for byte, with tables converted once."""
    _, z = bottleneck.draw(sizes[0])
    coder = OfficialCoder(bottleneck.rate)
    streams = coder.encode(z)
    if streams[: sizes[1]] != bottleneck.reference.encode(z[: sizes[1]]):
        raise AssertionError("streams in the official format differ from CompressAI's")
    ours = {
        "... in the official format: encode": lambda: coder.encode(z),
        # decoding re-encodes its output to check that the stream is intact
        "... in the official format: decode and check": lambda: coder.decode(streams),
    }
    z_hat = coder.decode(streams)
    return _compare_coders(bottleneck, ours, z, z_hat, sizes[1], n_repeats, (1, 0.5))


def _compare_coders(
    bottleneck: Bottleneck,
    ours: Mapping[str, Callable[[], object]],
    z: Tensor,
    z_hat: Tensor,
    n_reference: int,
    n_repeats: int,
    goals: tuple[float, float],
) -> list[Comparison]:
    """Compare our encoding and decoding of z [N, D] with CompressAI's, which codes only part of z.

    Raises AssertionError if CompressAI decodes other vectors: the times would not be comparable.

    Parameters
    ----------
    ours : our encoding and decoding, by title.
    z_hat : the vectors that ours decodes.
    """
    few, reference = z[:n_reference], bottleneck.reference
    streams = reference.encode(few)
    expected = reference.decode(streams)
    # the last digit depends on the order of operations
    if not torch.allclose(z_hat[:n_reference], expected, rtol=1e-5, atol=1e-5):
        raise AssertionError(f"{z.shape[1]} dimensions: the coders decode different vectors")
    theirs = (lambda: reference.encode(few), lambda: reference.decode(streams))
    options = {"sizes": (len(z), n_reference), "n_repeats": n_repeats}
    return [
        compare_speed(title, "CompressAI", function, other, low=goal, **options)
        for (title, function), other, goal in zip(ours.items(), theirs, goals, strict=True)
    ]


def _compare_wide(bottleneck: Bottleneck, n: int) -> list[Comparison]:
    """File sizes of features whose scale is larger than in training."""
    _, z = bottleneck.draw(n)
    official = OfficialCoder(bottleneck.rate)
    rows = []
    for width in WIDTHS:
        ours = len(bottleneck.rate.compress(z * width))
        theirs = sum(map(len, official.encode(z * width)))
        what = f"size of features scaled by {width}"
        rows.append(Comparison(what, "official format", "B", [ours], [theirs], high=1.01))
    return rows


def compare_bits(is_quick: bool) -> list[Comparison]:
    """Bits per point in a file of the Banana test set vs. the rate, after a short training run."""
    fitting.quiet()
    with tempfile.TemporaryDirectory() as folder:
        cfg = banana_config(Path(folder), *SMALL, "optimizer_feat.kwargs.lr=3e-3")
        compressor = building.build_compressor(cfg)
        data = building.build_data(cfg, "data_feat", compressor.distortion.needs)
        short_trainer(cfg, 50 if is_quick else 300).fit(compressor, datamodule=data)
        compressor.eval()
        compressor.rate.update()
        path, loader = Path(folder, "test.lossyless"), data.loader("test")
        sent = communication.send(compressor, [loader], path, cfg.communication.chunk_size)
        metrics = communication.measure(
            compressor, data, "test", sent=sent, path=path, device=torch.device("cpu"), n_single=1
        )
    n_bits, rate = metrics["test/comm/n_bits"], metrics["test/comm/rate"]
    what = f"file of {sent.n_examples:,} Banana points"
    slack = 0.01 + 0.01 / rate  # 1 % and 0.01 bit
    bounds = {"low": 1 - slack, "high": 1 + slack}
    return [Comparison(what, "theoretical rate", "bit", [n_bits], [rate], **bounds)]
