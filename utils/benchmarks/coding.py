"""Entropy coding benchmarks: time and size against CompressAI, size against the cross-entropy.

CompressAI converts its tables to Python lists on every call. With one stream per vector, as in the
paper's code, this conversion dominates its time; with one stream per batch, it does not.
"""

from functools import partial

from torch import Tensor

from lossyless.torch_state import one_thread
from utils.benchmarks.bottleneck import (
    Bottleneck,
    CompressAI,
    make_bottleneck,
    make_hyperprior,
)
from utils.benchmarks.comparison import Comparison, compare_speed

CHUNK_SIZE = 4096
WIDTHS = (1, 2, 8)  # factors by which vectors are scaled; 1 is the scale that the prior fits
TIMED_WIDTHS = (1, 8)
#: the lowest acceptable ratios of our speed to CompressAI's
GOALS = {"CompressAI per vector": 15, "CompressAI per batch": 0.7}


@one_thread()
def compare(is_quick: bool) -> list[Comparison]:
    """Compare speed on one core, and size, in 2 (Banana), 512 (CLIP) and 128 dimensions."""
    small, large = make_bottleneck(2), make_bottleneck(512)
    hyperprior = make_hyperprior(128, 30 if is_quick else 300)
    n, n_repeats = (256, 1) if is_quick else (2 * CHUNK_SIZE, 5)
    rows = _compare_width(small, 1, 10 * n, n_repeats)
    for bottleneck in (large, hyperprior):
        for width in WIDTHS:
            rows += _compare_width(bottleneck, width, n, n_repeats)
    return rows


def _compare_width(
    bottleneck: Bottleneck, width: float, n: int, n_repeats: int
) -> list[Comparison]:
    """Compare time and size for n vectors whose values are multiplied by `width`."""
    rate, z = bottleneck.rate, bottleneck.draw(n) * width
    what = f"{bottleneck.name}, {rate.z_dim} dimensions, {width}x"
    chunks = z.split(CHUNK_SIZE)
    payloads = [rate.compress(chunk) for chunk in chunks]

    def decode() -> list[Tensor]:
        return [rate.decompress(p, len(c)) for p, c in zip(payloads, chunks, strict=True)]

    error = (decode()[0] - chunks[0]).abs().max()
    bits = 8 * sum(map(len, payloads)) / n
    entropy = bottleneck.cross_entropy(z) / n
    rows = [Comparison(f"size: {what}", "cross-entropy", "bit", [bits], [entropy], high=1.01)]
    for (name, goal), some in zip(GOALS.items(), (z[: n // 40], z), strict=True):
        coder = CompressAI(rate, is_batched=some is z)
        streams = coder.encode(some)
        # our coder rounds means to multiples of 1/64, so vectors may move to a neighbouring cell
        if (coder.decode(streams, len(some)) - some).abs().max() > 1.1 * error:
            raise AssertionError(f"{what}: CompressAI's errors are larger than ours")
        theirs = 8 * sum(len(stream) for group in streams for stream in group) / len(some)
        rows.append(Comparison(f"size: {what}", name, "bit", [bits], [theirs], high=1.01))
        if width not in TIMED_WIDTHS:
            continue
        for title, ours, reference in (
            ("encode", lambda: [rate.compress(c) for c in chunks], partial(coder.encode, some)),
            ("decode", decode, partial(coder.decode, streams, len(some))),
        ):
            options = {"sizes": (n, len(some)), "n_repeats": n_repeats, "low": goal}
            rows.append(compare_speed(f"{title}: {what}", name, ours, reference, **options))
    return rows
