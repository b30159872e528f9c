"""The benchmark's compressors: their interface, and the settings of each method."""

import importlib
import importlib.util
import sys
import tempfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lossyless import ArrayCompressor
from lossyless.vector_codecs import FittedCodec, Int8Vectors, PCAVectors, RawVectors, VectorCodec
from utils.benchmarks.fewer_bits.features import Skipped

# Weights of the rate that give about 1000 to 50 bits: BETAS with squared errors, PAPER_BETAS with
# the absolute errors of the paper's method.
BETAS = {"caltech": (0.4, 0.8, 1.6, 3.2, 6.4, 12.8), "mnist": (0.07, 0.15, 0.4, 1.0, 3.0, 10.0)}
RATES = (50, 100, 200, 350, 600, 1000)  # bits
PAPER_BETAS = {"caltech": (0.2, 0.3, 0.5, 0.7, 1.0, 1.5), "mnist": (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)}

#: constructors of a method for several rates, keyed by the parameters that set the rate
Settings = Mapping[str, Callable[[], "Method"]]


class Method(ABC):
    """A compressor for float32 rows [N, D]."""

    @abstractmethod
    def fit(self, Z: NDArray) -> None: ...

    @abstractmethod
    def encode(self, Z: NDArray) -> bytes: ...

    @abstractmethod
    def decode(self, payload: bytes) -> NDArray:
        """Rows [N, D]."""

    @abstractmethod
    def n_bytes(self) -> int:
        """Size of everything that the decoder needs in addition to payloads."""


class Estimator(Method):
    """Wraps an unfitted `ArrayCompressor`."""

    def __init__(self, compressor: ArrayCompressor):
        self.compressor = compressor

    def fit(self, Z: NDArray) -> None:
        self.compressor.fit(Z)

    def encode(self, Z: NDArray) -> bytes:
        return self.compressor.compress(Z)

    def decode(self, payload: bytes) -> NDArray:
        return self.compressor.decompress(payload)

    def n_bytes(self) -> int:
        with tempfile.TemporaryDirectory() as folder:
            self.compressor.save(path := Path(folder, "model"))
            return path.stat().st_size


class Vectors(Method):
    """A chain of vector codecs, each of which codes the output of the previous one.

    Parameters
    ----------
    makers : constructors of the codecs, called with the number of input dimensions.
    level : zlib's compression level; 0 stores the values as they are.
    """

    def __init__(self, *makers: Callable[[int], VectorCodec], level: int = 0):
        self.makers, self.level = makers, level

    def fit(self, Z: NDArray) -> None:
        self.codecs, z = [], torch.from_numpy(Z)
        for make in self.makers:
            codec = make(z.shape[1])
            if isinstance(codec, FittedCodec):
                codec.fit(z)
            self.codecs.append(codec)
            z = torch.from_numpy(codec.quantise(z).astype(np.float32))

    def encode(self, Z: NDArray) -> bytes:
        for codec in self.codecs:
            Z = codec.quantise(torch.from_numpy(Z.astype(np.float32)))
        # one dimension after another, which zlib compresses better
        return zlib.compress(Z.T.tobytes(), self.level) if self.level else Z.T.tobytes()

    def decode(self, payload: bytes) -> NDArray:
        last = self.codecs[-1]
        values = zlib.decompress(payload) if self.level else payload
        values = np.frombuffer(values, last.dtype).reshape(last.width, -1).T
        for codec in reversed(self.codecs):
            values = codec.dequantise(values).numpy()
        return values

    def n_bytes(self) -> int:
        return sum(b.numel() * 4 for c in self.codecs for b in c.buffers())  # as float32


class Faiss(Method):
    """A faiss index, specified by its factory string."""

    def __init__(self, factory: str):
        if importlib.util.find_spec("faiss") is None:
            raise Skipped("pip install faiss-cpu")
        self.factory = factory

    def fit(self, Z: NDArray) -> None:
        import faiss

        self.index = faiss.index_factory(Z.shape[1], self.factory)
        self.index.train(Z)

    def encode(self, Z: NDArray) -> bytes:
        return self.index.sa_encode(Z).tobytes()

    def decode(self, payload: bytes) -> NDArray:
        codes = np.frombuffer(payload, np.uint8).reshape(-1, self.index.sa_code_size())
        return self.index.sa_decode(codes)

    def n_bytes(self) -> int:
        import faiss

        return len(faiss.serialize_index(self.index))


def compressor_of(checkout: Path) -> type:
    """`ArrayCompressor` from another checkout, imported alongside this one."""
    current = {name: sys.modules.pop(name) for name in _loaded()}
    sys.path.insert(0, str(checkout.resolve(strict=True)))
    try:
        return importlib.import_module("lossyless.array_compressor").ArrayCompressor
    finally:
        del sys.path[0]
        for name in _loaded():
            del sys.modules[name]
        sys.modules.update(current)


def _loaded() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] == "lossyless"]


def methods(data: str, commit: Path | None = None) -> Mapping[str, Settings]:
    """The settings of all methods, keyed by method name.

    Parameters
    ----------
    data : name of the data set that the methods will be fitted to.
    commit : checkout of an earlier release, whose KLT is added.
    """
    betas = BETAS[data]

    def ours(make: Callable[..., ArrayCompressor], key: str = "beta", values=betas, **settings):
        return {
            f"{key}={value:g}": lambda value=value: Estimator(make(**{key: value}, **settings))
            for value in values
        }

    def klt(**settings) -> dict:
        return ours(ArrayCompressor, "rate_target", RATES, **settings)

    def faiss(template: str, values: tuple[int, ...]) -> dict:
        names = [template.format(value) for value in values]
        return {name: lambda name=name: Faiss(name) for name in names}

    def pca(n: int) -> Callable[[int], VectorCodec]:
        return lambda dim: PCAVectors(dim, n)

    earlier = {f"KLT {commit.name}": ours(compressor_of(commit))} if commit else {}
    return earlier | {
        "float32": {"": lambda: Vectors(lambda dim: RawVectors(dim, "float32"))},
        "float16": {"": lambda: Vectors(RawVectors)},
        "int8": {"": lambda: Vectors(Int8Vectors)},
        "int8 + zlib": {"": lambda: Vectors(Int8Vectors, level=9)},
        "PCA + float16": {f"{n}": lambda n=n: Vectors(pca(n)) for n in (4, 8, 16, 32, 64)},
        "PCA + int8": {
            f"{n}": lambda n=n: Vectors(pca(n), Int8Vectors) for n in (6, 12, 24, 48, 80, 128)
        },
        "SQ": faiss("SQ{}", (4, 6, 8)),
        "PQ": faiss("PQ{}", (8, 16, 32, 64, 128)),
        "OPQ": faiss("PCA256,OPQ{0},PQ{0}", (8, 16, 32, 64, 128)),
        "RQ": faiss("PCA256,RQ{}x8", (6, 12, 24, 48)),
        "RaBitQ": faiss("PCAR{},RaBitQ", (64, 128, 256, 512)),
        "paper": ours(ArrayCompressor.paper, values=PAPER_BETAS[data]),
        "KLT": klt(),
        "KLT, weighting 0.5": klt(weighting=0.5),
        "KLT, no clusters": klt(n_clusters=0),
        "KLT, no clusters, weighting 0.5": klt(n_clusters=0, weighting=0.5),
        "KLT, no clusters, weighting 1": klt(n_clusters=0, weighting=1),
        "KLT, no clusters, weighting 1, no RDO": klt(n_clusters=0, weighting=1, rdo=False),
    }
