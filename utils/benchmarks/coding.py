"""Coding sets of vectors in long streams, against CompressAI's stream for every vector.

CompressAI's coder takes its tables as Python lists, which it makes anew for every vector; that is
most of its time at 512 dimensions.
"""

import torch

from lossyless.rates import HFactorized
from utils.benchmarks.comparison import Comparison, Goal, alternate, one_thread

CHUNK_SIZE = 65536


def compare(is_quick: bool) -> list[Comparison]:
    """Vectors per second, on one core: 2 dimensions as the Banana's, and 512."""
    with one_thread():
        if is_quick:
            return [*_compare_set(20_000, 2, 500, 2), *_compare_set(500, 512, 5, 2)]
        return [*_compare_set(100_000, 2, 2_000, 7), *_compare_set(4_000, 512, 25, 5)]


def _compare_set(n: int, z_dim: int, n_reference: int, n_repeats: int) -> list[Comparison]:
    """Coding `n` Gaussian vectors; CompressAI gets the first `n_reference`, and the same tables."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(n, z_dim, generator=generator) * torch.linspace(0.5, 2, z_dim)
    rate = HFactorized(z_dim).eval().requires_grad_(False)
    rate.update()
    chunks = z.split(CHUNK_SIZE)
    payloads = [rate.compress(chunk) for chunk in chunks]
    bottleneck = rate.prior
    inputs = (z[:n_reference] + rate.biasing) * rate.scaling.exp()
    strings = bottleneck.compress(inputs)

    decoded = bottleneck.decode(payloads[0], rate.tables["z"], len(chunks[0]))[:n_reference]
    if not torch.equal(decoded, bottleneck.decompress(strings, ())):
        raise AssertionError(f"{z_dim} dimensions: the two coders decode different vectors")

    encoding = alternate(
        lambda: [rate.compress(chunk) for chunk in chunks],
        lambda: bottleneck.compress(inputs),
        n_repeats,
    )
    decoding = alternate(
        lambda: [rate.decompress(p, len(c)) for p, c in zip(payloads, chunks, strict=True)],
        lambda: bottleneck.decompress(strings, ()),
        n_repeats,
    )
    return [
        Comparison(
            f"{action} {n:,} vectors of {z_dim}",
            "CompressAI",
            "/s",
            [n / s for s in ours],
            [n_reference / s for s in theirs],
            Goal(low=goal),
        )
        for action, (ours, theirs), goal in (("encode", encoding, 50), ("decode", decoding, 25))
    ]
