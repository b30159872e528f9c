"""Interfaces of the package: batches, codecs and compressors.

A sender turns examples into bytes, and a receiver turns bytes into inputs for predictors:

    x [N, *shape] --represent--> z --codec--> bytes --codec--> z_hat --receive--> predictor
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from typing import NamedTuple, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lossyless.parallel import Portable
from lossyless.torch_state import isolated

ROWS_AT_A_TIME = 1024  # saves memory without costing speed


class Batch(NamedTuple):
    """A batch of examples, the input of every model in this package."""

    #: [B, *shape], input of the sender: an (augmented) example X; in the prediction stage, its
    #: decoded representation
    x: Tensor
    #: [B] or [B, n_outputs], target of the downstream task: int64 classes, or float32 values
    y: Tensor
    #: [B, ...], target of the distortion: X itself (VC), the unaugmented representative of X's
    #: equivalence class (VIC), another member of the class (BINCE), the label (supervised), or None
    aux: Tensor | None = None


class SymbolCoder(Protocol):
    """Lossless coder for symbols [N, ...]. It does not use torch, so forked workers can run it."""

    def encode(self, symbols: NDArray) -> bytes: ...
    def decode(self, payload: bytes, n_examples: int) -> NDArray: ...


class Codec(Portable, nn.Module, ABC):
    """Base class for everything that compresses: rates, vector codecs, image codecs.

        z [N, *shape] --quantise--> symbols --coder().encode--> bytes
        bytes --coder().decode--> symbols --dequantise--> z_hat [N, *shape]

    Subclasses implement `quantise`, `dequantise` and `coder`. A codec that must run a network
    between decoding two streams, such as a hyperprior, has no `coder`; it overrides `compress` and
    `decompress` instead. A codec with an empty state dict has nothing to learn.

    Codecs are created in float32 on the CPU, whatever torch's defaults are, and keep their
    precision: `half`, `double`, ... have no effect. The methods in `ISOLATED` do not depend on the
    caller's torch settings.
    """

    ISOLATED = ("__init__", "fit", "update", "compress", "decompress", "quantise", "dequantise")

    #: name of the payload format, written to the header of compressed files
    format_name: str
    #: shape of one example; None if examples of any shape can be coded
    shape: tuple[int, ...] | None = None
    #: type of z_hat; float32 cannot represent differences that are small relative to an offset
    z_dtype: torch.dtype = torch.float32

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        for name in cls.ISOLATED:
            if name in vars(cls):
                setattr(cls, name, isolated(vars(cls)[name]))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Codec":
        def keep_dtype(tensor: Tensor) -> Tensor:
            new = fn(tensor)
            return new if new.dtype == tensor.dtype else tensor.to(new.device)

        return super()._apply(keep_dtype, recurse)

    @isolated
    def fingerprint(self) -> str:
        """Digest, in 32 hexadecimal digits, of everything that sender and receiver must share."""
        digest = blake2b(self.format_name.encode(), digest_size=16)
        for name, tensor in sorted(_tensors(self.state_dict()).items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @isolated
    def compress(self, z: Tensor) -> bytes:
        """Encode z [N, *shape], on any device, as one payload.

        Raises `CodingError` for values that cannot be coded, such as NaN.
        """
        return self.coder().encode(self.quantise(z))

    @isolated
    def decompress(self, payload: bytes, n_examples: int) -> Tensor:
        """Decode a payload to z_hat [n_examples, *shape], of type `z_dtype`, on the CPU.

        Raises `CodingError` if the payload is damaged.
        """
        return self.dequantise(self.coder().decode(payload, n_examples))

    def quantise(self, z: Tensor) -> NDArray:
        """Quantise z [N, *shape], on any device, to symbols [N, ...], each row independently."""
        raise NotImplementedError(f"{type(self).__name__} has no symbols")

    def dequantise(self, symbols: NDArray) -> Tensor:
        """Decode any subset of symbol rows to z_hat [n, *shape], of type `z_dtype`, on the CPU."""
        raise NotImplementedError(f"{type(self).__name__} has no symbols")

    def coder(self) -> SymbolCoder | None:
        """Return the coder for the symbols, or None if coding needs a network."""
        return None


class Compressor(nn.Module, ABC):
    """A sender and its receiver. The state dict is empty if there is nothing to learn."""

    #: whether predictors receive examples [N, *shape] rather than representations [N, z_dim]
    is_reconstruct: bool

    @property
    @abstractmethod
    def codec(self) -> Codec:
        """The codec of the representations."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Compute the inputs for predictors from x [B, *shape], on the device of x."""

    @abstractmethod
    def represent(self, x: Tensor) -> Tensor:
        """Apply the sender's network to x [B, *shape]; its outputs are coded."""

    @abstractmethod
    def receive(self, z_hat: Tensor) -> Tensor:
        """Apply the receiver's network to B decoded representations; predictors get its outputs."""


class PlainCompressor(Codec, Compressor):
    """A codec for the examples themselves, without networks or gradients.

    Subclasses that depend on the data, for example on their extremes, override `fit` and store what
    they learn in buffers.
    """

    @property
    def codec(self) -> Codec:
        return self

    def fit(self, x: Tensor) -> None:
        """Fit to training examples [N, *shape]; a no-op by default."""

    def forward(self, x: Tensor) -> Tensor:
        return self.receive(self.decompress(self.compress(self.represent(x)), len(x)).to(x.device))

    def represent(self, x: Tensor) -> Tensor:
        return x

    def receive(self, z_hat: Tensor) -> Tensor:
        return z_hat


def _tensors(state: Mapping[str, object], prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a (nested) state dict, keyed by their full names."""
    tensors = {}
    for name, value in state.items():
        if isinstance(value, Tensor):
            tensors[prefix + name] = value
        elif isinstance(value, Mapping):
            tensors |= _tensors(value, f"{prefix}{name}.")
    return tensors


def blocks(n_rows: int) -> Iterator[slice]:
    """Slices of rows to process one at a time, to bound the memory of intermediate results."""
    return (slice(i, i + ROWS_AT_A_TIME) for i in range(0, n_rows, ROWS_AT_A_TIME))
