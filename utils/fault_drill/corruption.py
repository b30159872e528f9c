"""Random damage to files of every format: what is read must be right, or an error must say why."""

import io
import random
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lossyless import ArrayCompressor
from lossyless.classical import ClassicalCompressor
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
from lossyless.rates import HFactorized, HHyper
from lossyless.vector_codecs import RawVectors
from lossyless.weights import WeightsError, read_checkpoint
from utils.fault_drill.trials import Outcome, Trials, judge
from utils.runs.run import write_checkpoint

PAGE = 4096


def _flip_bits(data: bytes, rng: random.Random, *_others: bytes) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 9])):
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _splice(data: bytes, rng: random.Random, other: bytes, _model: bytes) -> bytes:
    """Continue as another file of the same model; or repeat, remove or overwrite a part."""
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
    """Swap two chunks, or replace one by that of another file; blocks if there are no chunks."""
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
SELF_CONTAINED = ("weights of the hub", "checkpoint of a run", "ArrayCompressor.save")
# Damage that may stay undetected: the official format has no checksums, and recovery accepts
# intact chunks of other files of the same model.
LIMITS = {"official format": (*DAMAGES,), "file, skipping damage": ("splices", "swapped chunks")}
Write = Callable[[Path, int, int], object]  # writes a file of one of two models and contents
Read = Callable[[Path], object]


def make_codecs(seed: int) -> dict[str, nn.Module]:
    """A codec of each kind, with random weights."""
    torch.manual_seed(seed)
    codecs: dict[str, nn.Module] = {
        "factorized": HFactorized(Z_DIM),
        "hyperprior": HHyper(Z_DIM),
        "float": RawVectors(Z_DIM, ("float16", "float32")[seed]),
        "png": ClassicalCompressor(("png", "webp")[seed], 3),
    }
    for codec in codecs.values():
        for parameter in codec.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        if hasattr(codec, "update"):
            codec.update()
    return {name: codec.eval() for name, codec in codecs.items()}


def draw(content: int, *shape: int) -> Tensor:
    """Examples in [0, 1]; larger features would need escape codes."""
    return torch.rand(N, *(shape or (Z_DIM,)), generator=torch.Generator().manual_seed(content))


def make_formats() -> dict[str, tuple[Write, Read]]:
    models = [make_codecs(seed) for seed in (0, 1)]
    rates = [codecs["factorized"] for codecs in models]
    hubs = [FeatureCompressor(rate) for rate in rates]
    Z = draw(0).numpy()
    fitted = [ArrayCompressor(beta).fit(Z) for beta in (0.1, 0.2)]

    def write(name: str, path: Path | io.BytesIO, model: int, content: int) -> None:
        x = draw(content, 3, 4, 4) if name == "png" else 4 * draw(content)
        batch = x, np.arange(N) % 7, [f"{i}.png" for i in range(N)]
        write_features([batch], path, models[model][name], n_workers=1, chunk_size=CHUNK)

    def read(name: str, path: Path | bytes) -> tuple:
        with FeatureFile(path, models[0][name]) as file:
            return file.read(n_workers=1), file.labels(), np.array(file.names)

    write("factorized", buffer := io.BytesIO(), 0, 0)
    intact = read("factorized", buffer.getvalue())

    def read_skipping(path: Path) -> tuple:
        """Content of the intact file, unless recovered examples differ from it."""
        with FeatureFile(path, rates[0], on_damage="skip") as file:
            found = file.read(n_workers=1), file.labels(), np.array(file.names, intact[2].dtype)
            if same(found, tuple(part[file.indices] for part in intact)):
                return intact
            if any("from another file" in damage for damage in file.damaged):
                raise ContainerError(file.damaged[-1])
            return found

    def merge(path: Path) -> tuple:
        write("factorized", path.with_name("second"), 0, 1)
        merge_files([path, path.with_name("second")], path.with_name("merged"))
        return read("factorized", path.with_name("merged"))

    def write_official(path: Path, model: int, content: int) -> None:
        hubs[model].compress_features(4 * draw(content), path, is_info=False, format="official")

    def write_weights(path: Path, model: int, content: int) -> None:
        torch.manual_seed(2 * model + content)
        torch.save(HFactorized(Z_DIM).state_dict(), path)

    def write_arrays(path: Path, model: int, content: int) -> None:
        path.write_bytes(fitted[model].compress(np.tile(Z, (5, 1)) + content))  # two chunks

    def save(path: Path, model: int, content: int) -> None:
        fitted[model].set_params(weighting=1.0 - content / 2).save(path)

    def write_run(path: Path, model: int, content: int) -> None:
        write_checkpoint({"state_dict": models[model]["hyperprior"].state_dict()}, path)

    write_factorized = partial(write, "factorized")
    read_official = partial(hubs[0].decompress_dataset, is_info=False, n_workers=1)
    formats = {f"file, {name}": (partial(write, name), partial(read, name)) for name in models[0]}
    return formats | {
        "file, skipping damage": (write_factorized, read_skipping),
        "merging": (write_factorized, merge),
        "official format": (write_official, read_official),
        "weights of the hub": (write_weights, lambda path: load_bottleneck(path).fingerprint()),
        "ArrayCompressor.compress": (
            write_arrays,
            lambda path: fitted[0].decompress(path.read_bytes()),
        ),
        "ArrayCompressor.save": (save, lambda path: ArrayCompressor.load(path).compress(Z)),
        "checkpoint of a run": (write_run, read_checkpoint),
    }


def same(a: object, b: object) -> bool:
    """Whether nested containers of tensors, arrays and other values are equal, to the bit."""
    if isinstance(a, (Tensor, np.ndarray)):
        a, b = np.asarray(a), np.asarray(b)
        return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def damage(name: str, format: tuple[Write, Read], n_each: int, seed: int) -> Iterator[Trials]:
    """`n_each` damages of each kind to a file."""
    write, read = format
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "damaged")
        files = []
        for model, content in ((0, 1), (1, 0), (0, 0)):
            write(path, model, content)
            files.append(path.read_bytes())
        *others, data = files
        expected = read(path)
        # another intact file is not damaged; nor are other weights, which are as valid as these
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
    """`n_trials` damages, spread evenly over formats and kinds of damage."""
    formats = make_formats()
    n_each = -(-n_trials // (len(formats) * len(DAMAGES)))
    for name, format in formats.items():
        yield from damage(name, format, n_each, seed)
