"""Ways to damage the bytes of a file."""

import random
from collections.abc import Callable

from lossyless.files import ContainerError
from lossyless.files.format import CHUNK_HEAD
from lossyless.files.scan import Layout

PAGE = 4096


def _flip_bits(data: bytes, rng: random.Random, *_others: bytes) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 9])):
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _truncate(data: bytes, rng: random.Random, *_others: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def _splice(data: bytes, rng: random.Random, other: bytes, _model: bytes) -> bytes:
    """Continue as another file of the same model; or repeat, remove or overwrite a part."""
    start = rng.randrange(len(data))
    head, part, tail = data[:start], data[start:][: rng.choice([1, 8, 300, PAGE])], data[start:]
    tail = tail[len(part) :]
    ways = (
        head + other[start:],
        head + other[rng.randrange(len(other)) :],
        data + other,
        head + 2 * part + tail,
        head + tail,
        head + rng.randbytes(len(part)) + tail,
    )
    return rng.choice(ways)


def _swap_chunks(data: bytes, rng: random.Random, other: bytes, _model: bytes) -> bytes:
    """Swap two chunks, or replace one by that of another file; blocks if there are no chunks."""
    old, new = _chunks(data), _chunks(other)
    a, b = sorted(rng.sample(old, 2), key=lambda part: part.start)
    if rng.random() < 0.3:
        return data[: a.start] + other[rng.choice(new)] + data[a.stop :]
    return data[: a.start] + data[b] + data[a.stop : b.start] + data[a] + data[b.stop :]


def _chunks(data: bytes) -> list[slice]:
    try:
        return [slice(c.start - CHUNK_HEAD.size, c.end) for c in Layout(data).chunks]
    except ContainerError:
        size = max(1, len(data) // 16)
        return [slice(i, i + size) for i in range(0, len(data), size)]


def _zero_page(data: bytes, rng: random.Random, *_others: bytes) -> bytes:
    start = PAGE * rng.randrange(-(-len(data) // PAGE))
    n_bytes = len(data[start : start + PAGE])
    return data[:start] + bytes(n_bytes) + data[start + n_bytes :]


def _other_model(data: bytes, rng: random.Random, _other: bytes, model: bytes) -> bytes:
    """The file of another model, or the start of it."""
    cut = rng.choice([len(model), rng.randrange(1, len(model))])
    return model[:cut] + data[cut:]


def _other_version(data: bytes, rng: random.Random, *_others: bytes) -> bytes:
    """Another number where formats have their version: after magic numbers of 4 to 12 bytes."""
    at = rng.randrange(4, 13)
    return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]


# Each takes the file, a random generator, and files of other content and of another model.
DAMAGES: dict[str, Callable[[bytes, random.Random, bytes, bytes], bytes]] = {
    "bit flips": _flip_bits,
    "truncation": _truncate,
    "splices": _splice,
    "swapped chunks": _swap_chunks,
    "zeroed page": _zero_page,
    "other model": _other_model,
    "other version": _other_version,
}
