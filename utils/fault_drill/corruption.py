"""Random damage to files of every format: reading must be correct, or an error must say why not."""

import io
import random
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lossyless import ArrayCompressor
from lossyless.coding.payloads import CodingError
from lossyless.files import (
    CompressedFile,
    ContainerError,
    FeatureFile,
    merge_files,
    write_features,
)
from lossyless.files.format import CHUNK_HEAD
from lossyless.hub import SourceError
from lossyless.hub.features import FeatureCompressor
from lossyless.hub.weights import load_bottleneck
from lossyless.rates import HFactorized
from lossyless.weights import WeightsError
from utils.fault_drill.trials import Outcome, Trials, judge

PAGE = 4096


def _flip_bits(data: bytes, rng: random.Random, *_others: bytes) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 9])):
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _splice(data: bytes, rng: random.Random, other: bytes, _model: bytes) -> bytes:
    """Splice in another file from the same model, or repeat, remove or overwrite a part."""
    start = rng.randrange(len(data))
    stop = start + rng.choice([1, 8, 300, PAGE])
    head, part, tail = data[:start], data[start:stop], data[stop:]
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
    """Swap two chunks, or replace one with another file's; without chunks, use equal blocks."""
    old, new = _chunks(data), _chunks(other)
    a, b = sorted(rng.sample(old, 2), key=lambda part: part.start)
    if rng.random() < 0.3:
        return data[: a.start] + other[rng.choice(new)] + data[a.stop :]
    return data[: a.start] + data[b] + data[a.stop : b.start] + data[a] + data[b.stop :]


def _chunks(data: bytes) -> list[slice]:
    try:
        return [slice(c.start - CHUNK_HEAD.size, c.end) for c in CompressedFile(data).heads]
    except ContainerError:
        size = max(1, len(data) // 16)
        return [slice(i, i + size) for i in range(0, len(data), size)]


def _zero_page(data: bytes, rng: random.Random, *_others: bytes) -> bytes:
    start = PAGE * rng.randrange(-(-len(data) // PAGE))
    page, rest = data[start : start + PAGE], data[start + PAGE :]
    return data[:start] + bytes(len(page)) + rest


def _other_model(data: bytes, rng: random.Random, _other: bytes, model: bytes) -> bytes:
    """Replace the file, or only its start, with another model's file."""
    cut = rng.choice([len(model), rng.randrange(1, len(model))])
    return model[:cut] + data[cut:]


def _other_version(data: bytes, rng: random.Random, *_others: bytes) -> bytes:
    """Replace one byte at an offset of 4 to 12, where formats store their version."""
    at = rng.randrange(4, 13)
    return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]


# Each takes the file, a random generator, a file with other content, and another model's file.
DAMAGES: dict[str, Callable[[bytes, random.Random, bytes, bytes], bytes]] = {
    "bit flips": _flip_bits,
    "truncation": lambda data, rng, *_others: data[: rng.randrange(len(data))],
    "splices": _splice,
    "swapped chunks": _swap_chunks,
    "zeroed page": _zero_page,
    "other model": _other_model,
    "other version": _other_version,
}

EXPLAINED = (ContainerError, CodingError, WeightsError, SourceError)
N, Z_DIM, CHUNK = 1200, 16, 100
MAX_MEMORY = 64.0  # MiB, beyond twice the size of the file
SELF_CONTAINED = ("weights of the hub", "ArrayCompressor.save")
# Damage that may go undetected: the official format has no checksums, and recovery accepts
# intact chunks from other files of the same model.
LIMITS = {"official format": (*DAMAGES,), "file, skipping damage": ("splices", "swapped chunks")}
Write = Callable[[Path, int, int], object]  # (path, model 0 or 1, content 0 or 1)
Read = Callable[[Path], object]


def make_rate(seed: int) -> HFactorized:
    """A bottleneck with random weights."""
    torch.manual_seed(seed)
    rate = HFactorized(Z_DIM)
    for parameter in rate.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    rate.update()
    return rate.eval()


def draw(content: int) -> Tensor:
    """Draw examples with values in [0, 4); larger ones would need escape codes."""
    return 4 * torch.rand(N, Z_DIM, generator=torch.Generator().manual_seed(content))


def make_formats() -> dict[str, tuple[Write, Read]]:
    rates = [make_rate(seed) for seed in (0, 1)]
    hubs = [FeatureCompressor(rate) for rate in rates]
    Z = draw(0).numpy() / 4
    fitted = [ArrayCompressor(beta).fit(Z) for beta in (0.1, 0.2)]

    def write(path: Path | io.BytesIO, model: int, content: int) -> None:
        batch = draw(content), np.arange(N) % 7, [f"{i}.png" for i in range(N)]
        write_features([batch], path, rates[model], n_workers=1, chunk_size=CHUNK)

    def read(path: Path | bytes) -> tuple:
        with FeatureFile(path, rates[0]) as file:
            return file.read(n_workers=1), file.labels(), np.array(file.names)

    write(buffer := io.BytesIO(), 0, 0)
    intact = read(buffer.getvalue())

    def read_skipping(path: Path) -> tuple:
        """Return the intact content, unless recovered examples differ from it."""
        with FeatureFile(path, rates[0], on_damage="skip") as file:
            found = file.read(n_workers=1), file.labels(), np.array(file.names, intact[2].dtype)
            if same(found, tuple(part[file.indices] for part in intact)):
                return intact
            if any("from another file" in damage for damage in file.damaged):
                raise ContainerError(file.damaged[-1])
            return found

    def merge(path: Path) -> tuple:
        write(path.with_name("second"), 0, 1)
        merge_files([path, path.with_name("second")], path.with_name("merged"))
        return read(path.with_name("merged"))

    def write_official(path: Path, model: int, content: int) -> None:
        hubs[model].compress_features(draw(content), path, is_info=False, format="official")

    def write_weights(path: Path, model: int, content: int) -> None:
        torch.manual_seed(2 * model + content)
        torch.save(HFactorized(Z_DIM).state_dict(), path)

    def write_arrays(path: Path, model: int, content: int) -> None:
        path.write_bytes(fitted[model].compress(np.tile(Z, (5, 1)) + content))  # two chunks

    def save(path: Path, model: int, content: int) -> None:
        fitted[model].set_params(weighting=1.0 - content / 2).save(path)

    return {
        "file": (write, read),
        "file, skipping damage": (write, read_skipping),
        "merging": (write, merge),
        "official format": (
            write_official,
            partial(hubs[0].decompress_dataset, is_info=False, n_workers=1),
        ),
        "weights of the hub": (write_weights, lambda path: load_bottleneck(path).fingerprint()),
        "ArrayCompressor.compress": (
            write_arrays,
            lambda path: fitted[0].decompress(path.read_bytes()),
        ),
        "ArrayCompressor.save": (save, lambda path: ArrayCompressor.load(path).compress(Z)),
    }


def same(a: object, b: object) -> bool:
    """Whether nested containers of tensors, arrays and other values are equal bit for bit."""
    if isinstance(a, (Tensor, np.ndarray)):
        a, b = np.asarray(a), np.asarray(b)
        return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def damage(name: str, format: tuple[Write, Read], n_each: int, seed: int) -> Iterator[Trials]:
    """Yield trials that damage a file `n_each` times with each kind of damage."""
    write, read = format
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "damaged")
        files = []
        for model, content in ((0, 1), (1, 0), (0, 0)):
            write(path, model, content)
            files.append(path.read_bytes())
        *others, data = files
        expected = read(path)
        # another intact file is not damage; other weights are as valid as the original ones
        intact = files if name in SELF_CONTAINED else [data, others[0]]

        def run(kind: str, number: int) -> Outcome:
            rng = random.Random(f"{seed} {name} {kind} {number}")
            damaged = data
            while damaged in intact:
                damaged = DAMAGES[kind](data, rng, *others)
            path.write_bytes(damaged)
            return judge(lambda: same(read(path), expected), EXPLAINED, place)

        place = "payload" if name == "ArrayCompressor.compress" else path.name
        limit = MAX_MEMORY + 2 * len(data) / 2**20
        for kind in DAMAGES:
            is_limited = kind in LIMITS.get(name, ())
            yield Trials(kind, name, partial(run, kind), range(n_each), limit, is_limited)


def trials(n_trials: int, seed: int) -> Iterator[Trials]:
    """Yield trials that damage files `n_trials` times, evenly across formats and kinds."""
    formats = make_formats()
    n_each = -(-n_trials // (len(formats) * len(DAMAGES)))
    for name, format in formats.items():
        yield from damage(name, format, n_each, seed)
