"""Simple vector codecs: the baselines for learned feature compressors.

Payloads are plain little-endian arrays [N, width], without overhead.
"""

import io
import math
from abc import abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lossyless.base import PlainCompressor, SymbolCoder
from lossyless.coding.payloads import ArrayCoder, CodingError

FLOATS = {"float16": np.dtype("<f2"), "float32": np.dtype("<f4")}
MAX_BITS = 8  # per value


class VectorCodec(PlainCompressor):
    """Base class for vector codecs, whose sender and receiver both work on vectors [N, z_dim]."""

    is_reconstruct = False
    #: type of the stored values, and their number per vector
    dtype: np.dtype
    width: int

    def __init__(self, z_dim: int):
        super().__init__()
        self.z_dim = z_dim
        self.shape = (z_dim,)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "VectorCodec":
        """Ignore `to`, `half`, ...: vectors are coded on the CPU."""
        return self

    def quantise(self, z: Tensor) -> NDArray:  # dtype [N, width]
        return self._encode(self._checked(z))

    def _checked(self, z: Tensor) -> Tensor:
        """Return z [N, z_dim] as float64 on the CPU. Raises CodingError if z cannot be coded."""
        if z.ndim != 2 or z.shape[1] != self.z_dim:
            raise CodingError(f"expected vectors [N, {self.z_dim}], found {list(z.shape)}")
        z = z.cpu().double()
        if not z.float().isfinite().all():
            raise CodingError(
                f"{self.format_name} cannot code values that are not finite in float32"
            )
        return z

    def dequantise(self, symbols: NDArray) -> Tensor:
        return self._decode(symbols)

    def coder(self) -> ArrayCoder:
        return ArrayCoder(self.dtype, (self.width,))

    @abstractmethod
    def _encode(self, z: Tensor) -> NDArray:
        """Return values [N, width] to store for finite float64 vectors z [N, z_dim] on the CPU."""

    @abstractmethod
    def _decode(self, values: NDArray) -> Tensor:
        """Decode stored values [N, width] to vectors [N, z_dim] of type `z_dtype`."""


class RawVectors(VectorCodec):
    """Vectors stored as floats; `dtype` is "float16" or "float32"."""

    def __init__(self, z_dim: int, dtype: str = "float16"):
        super().__init__(z_dim)
        if dtype not in FLOATS:
            raise ValueError(f"dtype={dtype!r}: choose one of {', '.join(FLOATS)}")
        self.format_name, self.dtype, self.width = dtype, FLOATS[dtype], z_dim

    def _encode(self, z: Tensor) -> NDArray:
        return _as_floats(z, self.dtype)

    def _decode(self, values: NDArray) -> Tensor:
        return torch.from_numpy(values.astype(np.float32))


class PublishedVectors(RawVectors):
    """Raw vectors with the rate that the official code reports for uncompressed features."""

    def rates(self, x: Tensor) -> Tensor:
        """Rates [B], in nats: size of `np.savez_compressed(x)` per row of float32 x [B, z_dim]."""
        file = io.BytesIO()
        np.savez_compressed(file, x.detach().float().cpu().numpy())
        return torch.full((len(x),), 8 * file.tell() / len(x) * math.log(2))


class FittedCodec(VectorCodec):
    """A vector codec that is fitted to data: subclasses also implement `_fit`."""

    def __init__(self, z_dim: int):
        super().__init__(z_dim)
        self.register_buffer("is_fitted", torch.tensor(False))

    def fit(self, z: Tensor) -> None:
        z = self._checked(z)
        self.is_fitted.fill_(False)  # stays False if fitting fails
        self._fit(z)
        self.is_fitted.fill_(True)

    @abstractmethod
    def _fit(self, z: Tensor) -> None:
        """Learn from float64 vectors [N, z_dim] on the CPU, N > 0; store the result in buffers."""

    def coder(self) -> SymbolCoder:
        if not self.is_fitted:
            raise RuntimeError(f"{type(self).__name__} is not fitted: call `fit` first")
        return self._fitted_coder()

    def _fitted_coder(self) -> SymbolCoder:
        return ArrayCoder(self.dtype, (self.width,))


class UniformVectors(FittedCodec):
    """Uniform quantisation between the minimum and maximum of each dimension.

    Values outside the range of the training vectors are clipped; the error of any other value
    is at most half a step. Each value has `n_bits` bits, 1 to 8, for 2^n_bits levels. The bits of a
    vector are packed and padded to whole bytes.
    """

    dtype = np.dtype("u1")

    def __init__(self, z_dim: int, n_bits: int):
        super().__init__(z_dim)
        if not 1 <= n_bits <= MAX_BITS:
            raise ValueError(
                f"n_bits={n_bits} must be in [1, {MAX_BITS}]; for 16 and 32 bits, use RawVectors"
            )
        self.format_name = f"int{n_bits}"
        self.n_bits = n_bits
        self.width = -(-z_dim * n_bits // 8)
        self.register_buffer("low", torch.zeros(z_dim, dtype=torch.float64))
        self.register_buffer("step", torch.zeros(z_dim, dtype=torch.float64))

    @property
    def _last(self) -> int:
        return 2**self.n_bits - 1

    def _fit(self, z: Tensor) -> None:
        low, high = z.aminmax(dim=0)
        self.low.copy_(low)
        self.step.copy_((high - low) / self._last)

    def _encode(self, z: Tensor) -> NDArray:
        steps = (z - self.low) / torch.where(self.step > 0, self.step, 1.0)
        return _pack(steps.round().clamp(0, self._last).to(torch.uint8).numpy(), self.n_bits)

    def _decode(self, values: NDArray) -> Tensor:
        steps = torch.from_numpy(_unpack(values, self.n_bits, self.z_dim).astype(np.float64))
        return (steps * self.step + self.low).float()


class Int8Vectors(UniformVectors):
    """`UniformVectors` with 8 bits per value."""

    def __init__(self, z_dim: int):
        super().__init__(z_dim, n_bits=8)


class PCAVectors(FittedCodec):
    """The first `n_components` principal components as float16.

    Decoding multiplies matrices, so the last digits may depend on the machine.
    """

    format_name = "pca"
    dtype = FLOATS["float16"]

    def __init__(self, z_dim: int, n_components: int):
        super().__init__(z_dim)
        if not 1 <= n_components <= z_dim:
            raise ValueError(f"n_components={n_components} must be in [1, z_dim={z_dim}]")
        self.width = n_components
        self.register_buffer("mean", torch.zeros(z_dim, dtype=torch.float64))
        self.register_buffer("axes", torch.zeros(n_components, z_dim, dtype=torch.float64))

    def _fit(self, z: Tensor) -> None:
        mean = z.mean(0)
        _, vectors = torch.linalg.eigh((z - mean).T @ (z - mean) / len(z))  # ascending variances
        self.mean.copy_(mean)
        self.axes.copy_(vectors.T.flip(0)[: self.width])

    def _encode(self, z: Tensor) -> NDArray:
        return _as_floats((z - self.mean) @ self.axes.T, self.dtype)

    def _decode(self, values: NDArray) -> Tensor:
        components = torch.from_numpy(values.astype(np.float64))
        return (components @ self.axes + self.mean).float()


def _as_floats(values: Tensor, dtype: np.dtype) -> NDArray:
    """Convert to a floating-point type. Raises CodingError for values that are too large."""
    with np.errstate(over="ignore"):  # checked below
        floats = values.numpy().astype(dtype)
    if not np.isfinite(floats).all():
        raise CodingError(
            f"values exceed the maximum of {dtype.name}, {np.finfo(dtype).max:g}: use dtype=float32"
        )
    return floats


def _pack(values: NDArray, n_bits: int) -> NDArray:
    """Pack integers [N, D] below 2^n_bits into bytes [N, width], lowest bit first."""
    bits = np.unpackbits(values[..., None], axis=-1, count=n_bits, bitorder="little")
    bits = bits.reshape(len(values), values.shape[1] * n_bits)
    return np.packbits(bits, axis=-1, bitorder="little")


def _unpack(packed: NDArray, n_bits: int, dim: int) -> NDArray:
    """Unpack integers packed by `_pack`, as uint8 [N, dim]."""
    bits = np.unpackbits(packed, axis=-1, count=dim * n_bits, bitorder="little")
    bits = bits.reshape(len(packed), dim, n_bits)
    return np.packbits(bits, axis=-1, bitorder="little")[..., 0]
