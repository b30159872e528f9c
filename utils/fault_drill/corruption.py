"""Random damage to files of every format: what is read must be right, or an error must say why."""

import random
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lossyless import ArrayCompressor
from lossyless.classical import ClassicalCompressor, RawPixels
from lossyless.coding.payloads import CodingError
from lossyless.files import ContainerError, FeatureFile, merge_files, write_features
from lossyless.hub import SourceError
from lossyless.hub.features import FeatureCompressor
from lossyless.hub.weights import load_bottleneck
from lossyless.rates import HFactorized, HHyper, HSpatial
from lossyless.vector_codecs import PCAVectors, RawVectors, UniformVectors
from lossyless.weights import WeightsError, read_checkpoint
from utils.data.feature_cache import FeatureCache
from utils.data.module import DataError
from utils.fault_drill.damages import DAMAGES
from utils.fault_drill.trials import Row, Trial, attempt_all, judge, summarise
from utils.runs.run import write_checkpoint

EXPLAINED = (ContainerError, CodingError, WeightsError, SourceError, DataError)
N, Z_DIM, CHUNK = 1200, 16, 100
MAX_MEMORY = 64.0  # MiB, beyond twice the size of the file
SELF_CONTAINED = ("weights of the hub", "checkpoint of a run", "ArrayCompressor.save")
NAMES = {"ArrayCompressor.compress": "payload", "cached features": "features.npy"}  # in errors
Write = Callable[[Path, int, int], object]  # writes a file of one of two models and contents
Read = Callable[[Path], object]


def make_codecs(seed: int) -> dict[str, nn.Module]:
    """A codec of each kind, with random weights."""
    torch.manual_seed(seed)
    codecs: dict[str, nn.Module] = {
        "factorized": HFactorized(Z_DIM),
        "hyperprior": HHyper(Z_DIM),
        "spatial": HSpatial(Z_DIM, latent_side=2),
        "float": RawVectors(Z_DIM, ("float16", "float32")[seed % 2]),
        "int8": UniformVectors(Z_DIM, 8),
        "pca": PCAVectors(Z_DIM, 3),
        "pixels": RawPixels([(3, 4, 4), (3, 2, 8)][seed % 2]),
        "png": ClassicalCompressor(("png", "webp")[seed % 2], 3),
    }
    for codec in codecs.values():
        for parameter in codec.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        if hasattr(codec, "fit"):
            codec.fit(torch.randn(N, Z_DIM))
        if hasattr(codec, "update"):
            codec.update()
    return {name: codec.eval() for name, codec in codecs.items()}


def draw(codec: nn.Module, content: int) -> Tensor:
    """Examples for a codec."""
    generator = torch.Generator().manual_seed(content)
    if isinstance(codec, ClassicalCompressor):
        return torch.rand(N, 3, 4, 4, generator=generator)
    return torch.rand(N, *codec.shape, generator=generator) * (1 if codec.shape[1:] else 4)


def make_formats() -> dict[str, tuple[Write, Read]]:
    models = [make_codecs(seed) for seed in (0, 1)]
    rates = [codecs["factorized"] for codecs in models]
    intact: list = []  # content of the file that `read_skipping` gets

    def write(name: str, path: Path, model: int, content: int) -> None:
        codec = models[model][name]
        batch = draw(codec, content), np.arange(N) % 7, [f"{i}.png" for i in range(N)]
        write_features([batch], path, codec, n_workers=1, chunk_size=CHUNK)

    def read(name: str, path: Path) -> tuple:
        with FeatureFile(path, models[0][name]) as file:
            return file.read(n_workers=1), file.labels(), file.names

    def read_skipping(path: Path) -> tuple:
        """Content of the intact file, unless recovered examples differ from it."""
        with FeatureFile(path, rates[0], on_damage="skip") as file:
            found = file.read(n_workers=1), file.labels(), np.array(file.names, "U9")
            intact.append(found) if not intact else None
            if same(found, tuple(part[file.indices] for part in intact[0])):
                return intact[0]
            if "from another file" in file.damaged[-1]:
                raise ContainerError(file.damaged[-1])
            return found

    def merge(path: Path) -> tuple:
        write("factorized", path.with_name("second"), 0, 1)
        merge_files([path, path.with_name("second")], path.with_name("merged"))
        return read("factorized", path.with_name("merged"))

    write_factorized = partial(write, "factorized")
    formats = {f"file, {name}": (partial(write, name), partial(read, name)) for name in models[0]}
    return formats | {
        "file, skipping damage": (write_factorized, read_skipping),
        "merging": (write_factorized, merge),
        **_formats_of_hub(rates),
        **_formats_of_arrays(),
        **_formats_of_runs(),
    }


def _formats_of_hub(rates: list[HFactorized]) -> dict[str, tuple[Write, Read]]:
    def write(path: Path, model: int, content: int) -> None:
        hub = FeatureCompressor(rates[model])
        hub.compress_features(draw(rates[0], content), path, is_info=False, format="official")

    def write_weights(path: Path, model: int, content: int) -> None:
        torch.manual_seed(2 * model + content)
        torch.save(HFactorized(Z_DIM).state_dict(), path)

    read = partial(FeatureCompressor(rates[0]).decompress_dataset, is_info=False, n_workers=1)
    return {
        "official format": (write, read),
        "weights of the hub": (write_weights, lambda path: load_bottleneck(path).fingerprint()),
    }


def _formats_of_arrays() -> dict[str, tuple[Write, Read]]:
    Z = draw(HFactorized(Z_DIM), 0).numpy()
    fitted = [ArrayCompressor(beta).fit(Z) for beta in (0.1, 0.2)]

    def write(path: Path, model: int, content: int) -> None:
        path.write_bytes(fitted[model].compress(np.tile(Z, (5, 1)) + content))  # two chunks

    def save(path: Path, model: int, content: int) -> None:
        fitted[model].set_params(weighting=1.0 - content / 2).save(path)

    return {
        "ArrayCompressor.compress": (write, lambda p: fitted[0].decompress(p.read_bytes())),
        "ArrayCompressor.save": (save, lambda path: ArrayCompressor.load(path).compress(Z)),
    }


def _formats_of_runs() -> dict[str, tuple[Write, Read]]:
    def write(path: Path, model: int, content: int) -> None:
        torch.manual_seed(model)
        write_checkpoint({"state_dict": HHyper(Z_DIM).state_dict(), "epoch": content}, path)

    def fill(folder: Path, content: int = 0) -> dict:
        np.save(folder / "features.npy", draw(HFactorized(Z_DIM), content).numpy())
        np.save(folder / "targets.npy", np.arange(N))
        return {"seconds_per_image": 0.1}

    def write_cached(path: Path, model: int, content: int) -> None:
        fill(path.parent, 2 * model + content)
        path.write_bytes((path.parent / "features.npy").read_bytes())

    def read_cached(path: Path) -> Tensor:
        cache = FeatureCache(path.parent / "cache", "cache", {}, {})
        cache.get("train", 0, None, fill)
        (cache.path("train", 0, None) / "features.npy").write_bytes(path.read_bytes())
        return cache.get("train", 0, None, fill).x

    return {
        "checkpoint of a run": (write, read_checkpoint),
        "cached features": (write_cached, read_cached),
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


def damage_file(name: str, format: tuple[Write, Read], n_each: int, seed: int) -> list[Row]:
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

        def trial(case: tuple[str, int]) -> Trial:
            rng = random.Random(f"{seed} {name} {case}")
            damaged = data
            while damaged in intact:
                damaged = DAMAGES[case[0]](data, rng, *others)
            path.write_bytes(damaged)
            return judge(lambda: same(read(path), expected), EXPLAINED, NAMES.get(name, path.name))

        limit = MAX_MEMORY + 2 * len(data) / 2**20
        rows = []
        for damage in DAMAGES:
            cases = [(damage, number) for number in range(n_each)]
            trials = attempt_all(trial, cases, max_memory=limit)
            rows.append(summarise(damage, name, trials, seed))
    return rows


def run(n_trials: int, seed: int) -> Iterator[Row]:
    """`n_trials` damages, spread evenly over formats and kinds of damage."""
    formats = make_formats()
    n_each = -(-n_trials // (len(formats) * len(DAMAGES)))
    for name in formats:
        yield from damage_file(name, formats[name], n_each, seed)
