"""Benchmarks of entropy coding: our long streams against one CompressAI stream per vector.

CompressAI converts its tables to Python lists for every vector, which takes most of its time at 512
dimensions.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lossyless.hub.official_format import OfficialCoder
from lossyless.torch_state import one_thread
from utils.benchmarks.bottleneck import Bottleneck, PerVectorCoder, load_released, make_bottleneck
from utils.benchmarks.comparison import Comparison, Goal, alternate
from utils.benchmarks.setups import SMALL, banana_config, short_trainer
from utils.evaluation import communication
from utils.training import building, fitting

CHUNK_SIZE = 4096


def compare(is_quick: bool) -> list[Comparison]:
    """Vectors per second on one core, of 2 (Banana) and 512 (CLIP) dimensions, and file sizes."""
    small, large = make_bottleneck(2), load_released()
    with one_thread():
        if is_quick:
            return [
                *_compare_streams(small, 20_000, 500, 2, Goal(low=50), Goal(low=25)),
                *_compare_streams(large, 1_000, 10, 2, Goal(low=70), Goal(low=35)),
                *_compare_official(large, 50, 10, 2),
                *_compare_wide(large, 500),
            ]
        return [
            *_compare_streams(small, 100_000, 2_000, 7, Goal(low=50), Goal(low=25)),
            *_compare_streams(large, 20_000, 200, 5, Goal(low=70), Goal(low=35)),
            *_compare_official(large, 2_000, 200, 5),
            *_compare_wide(large, 4_096),
        ]


def _compare_streams(
    bottleneck: Bottleneck,
    n: int,
    n_reference: int,
    n_repeats: int,
    encoding_goal: Goal,
    decoding_goal: Goal,
) -> list[Comparison]:
    """Symbols to bytes and back; CompressAI codes `n_reference` vectors and also rounds them."""
    rate, reference = bottleneck.rate, bottleneck.reference
    symbols, z = bottleneck.draw(n)
    coder = rate.coder()
    chunks = np.split(symbols, range(CHUNK_SIZE, n, CHUNK_SIZE))
    payloads = [coder.encode(chunk) for chunk in chunks]
    z = z[:n_reference]
    streams = reference.encode(z)
    _check_same(rate.dequantise(coder.decode(payloads[0], len(chunks[0]))), reference, streams)

    encoding = alternate(
        lambda: [coder.encode(chunk) for chunk in chunks], lambda: reference.encode(z), n_repeats
    )
    decoding = alternate(
        lambda: [coder.decode(p, len(c)) for p, c in zip(payloads, chunks, strict=True)],
        lambda: reference.decode(streams),
        n_repeats,
    )
    what = f"{n:,} vectors of {rate.z_dim} ({bottleneck.name})"
    sizes = n, n_reference
    return [
        _row(f"encode {what}", encoding, sizes, encoding_goal),
        _row(f"decode {what}", decoding, sizes, decoding_goal),
    ]


def _compare_official(
    bottleneck: Bottleneck, n: int, n_reference: int, n_repeats: int
) -> list[Comparison]:
    """The official format: CompressAI's streams, byte for byte, with tables converted once."""
    reference = bottleneck.reference
    _, z = bottleneck.draw(n)
    coder = OfficialCoder(bottleneck.rate)
    ours, theirs = coder.encode(z), reference.encode(z[:n_reference])
    if ours[:n_reference] != theirs:
        raise AssertionError("streams in the official format differ from CompressAI's")
    _check_same(coder.decode(ours), reference, theirs)
    encoding = alternate(
        lambda: coder.encode(z), lambda: reference.encode(z[:n_reference]), n_repeats
    )
    decoding = alternate(lambda: coder.decode(ours), lambda: reference.decode(theirs), n_repeats)
    sizes = n, n_reference
    return [
        _row("... in the official format: encode", encoding, sizes, Goal(low=1)),
        # our decoder re-encodes its output to check that the stream is intact
        _row("... in the official format: decode and check", decoding, sizes, Goal(low=0.5)),
    ]


def _compare_wide(bottleneck: Bottleneck, n: int) -> list[Comparison]:
    """Bytes of features with a larger scale than in training."""
    _, z = bottleneck.draw(n)
    official = OfficialCoder(bottleneck.rate)
    rows = []
    for width in (1, 2, 3, 4, 5, 8, 32, 1000):
        ours = len(bottleneck.rate.compress(z * width))
        theirs = sum(map(len, official.encode(z * width)))
        what = f"size of features scaled by {width}"
        rows.append(Comparison(what, "official format", "B", [ours], [theirs], Goal(high=1.01)))
    return rows


def _check_same(z_hat: Tensor, reference: PerVectorCoder, streams: list[bytes]) -> None:
    """Raise unless both coders decode the same vectors, so that their times are comparable."""
    theirs = reference.decode(streams)
    # the last digit depends on the order of operations
    if not torch.allclose(z_hat[: len(theirs)], theirs, rtol=1e-5, atol=1e-5):
        raise AssertionError(f"{theirs.shape[1]} dimensions: the coders decode different vectors")


def _row(
    what: str, times: tuple[list[float], list[float]], sizes: tuple[int, int], goal: Goal
) -> Comparison:
    """Vectors per second, from the seconds that each coder took and its number of vectors."""
    (ours, theirs), (n, n_reference) = times, sizes
    return Comparison(
        what, "CompressAI", "/s", [n / s for s in ours], [n_reference / s for s in theirs], goal
    )


def compare_bits(is_quick: bool) -> list[Comparison]:
    """Bits per point in a file of the Banana test set, against the rate, after a short training."""
    fitting.quiet()
    device = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        cfg = banana_config(Path(folder), *SMALL, "optimizer_feat.kwargs.lr=3e-3")
        compressor = building.build_compressor(cfg)
        data = building.build_data(cfg, "data_feat", compressor.distortion.needs)
        short_trainer(cfg, 50 if is_quick else 300).fit(compressor, datamodule=data)
        compressor.eval()
        compressor.rate.update()
        path = Path(folder, "test.lossyless")
        sent = communication.send(
            compressor, [data.loader("test")], path, cfg.communication.chunk_size
        )
        metrics = communication.measure(
            compressor, data, "test", sent=sent, path=path, device=device, n_single=1
        )
    n_bits, rate = metrics["test/comm/n_bits"], metrics["test/comm/rate"]
    slack = 0.01 + 0.01 / rate  # 1 % and 0.01 bit
    return [
        Comparison(
            f"file of {sent.n_examples:,} Banana points",
            "theoretical rate",
            "bit",
            [n_bits],
            [rate],
            Goal(1 - slack, 1 + slack),
        )
    ]
