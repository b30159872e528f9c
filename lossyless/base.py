"""The contracts that everything else is built on: batches of data, and compressors.

Data sets become bytes, and bytes become what predictors get:

    x [N, *shape] --represent--> z --compress--> bytes --decompress--> z_hat --receive--> predictor
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from hashlib import blake2b
from typing import NamedTuple

from torch import Tensor, nn


class Batch(NamedTuple):
    """A batch of examples as every model of this package receives it.

    Attributes
    ----------
    x : Tensor [B, *shape]
        What the sender sees: an (augmented) example X, or its decoded representation in the
        prediction stage.
    y : Tensor [B] or [B, n_outputs]
        Target of the downstream task: int64 classes, or float32 values.
    aux : Tensor [B, *shape] or None
        What the distortion compares with. Which variable that is follows from the distortion:
        X itself (VC), the unaugmented representative of X's equivalence class (VIC), another
        member of the class (BINCE), nothing.
    """

    x: Tensor
    y: Tensor
    aux: Tensor | None = None


class Compressor(nn.Module, ABC):
    """A sender and its receiver. What it has learnt is its state dict, which may be empty."""

    #: name of the format; written to the header of compressed data sets
    codec: str
    #: whether the receiver works on examples [N, *shape], rather than on representations [N, z_dim]
    is_reconstruct: bool

    @abstractmethod
    def fingerprint(self) -> str:
        """Digest of all that a receiver must share with the sender."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """What predictors get of x [B, *shape], on its device."""

    @abstractmethod
    def represent(self, x: Tensor) -> Tensor:
        """What is coded of x [B, *shape]: the sender's network."""

    @abstractmethod
    def compress(self, z: Tensor) -> bytes:
        """Code N representations."""

    @abstractmethod
    def decompress(self, payload: bytes, n_examples: int) -> Tensor:
        """Representations of `n_examples`, on the CPU. Raises `CodingError` on damage."""

    @abstractmethod
    def receive(self, z_hat: Tensor) -> Tensor:
        """What predictors get of B decoded representations: the receiver's network."""


class PlainCompressor(Compressor):
    """A compressor without networks: it codes examples themselves, and no gradient trains it.

    One that needs to know the data, such as their extremes, learns it in `fit`, and keeps it in
    buffers. One without buffers is neither fitted nor loaded.
    """

    def fit(self, x: Tensor) -> None:
        """Learn from training examples [N, *shape]; nothing by default."""

    def forward(self, x: Tensor) -> Tensor:
        return self.receive(self.decompress(self.compress(self.represent(x)), len(x)).to(x.device))

    def represent(self, x: Tensor) -> Tensor:
        return x

    def receive(self, z_hat: Tensor) -> Tensor:
        return z_hat


def fingerprint(codec: str, state: Mapping[str, object]) -> str:
    """32 hexadecimal digits of the name of a format and of all tensors in a (nested) state dict."""
    digest = blake2b(codec.encode(), digest_size=16)
    for name, tensor in sorted(_tensors(state).items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _tensors(state: Mapping[str, object], prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a (nested) state dict by their full names."""
    tensors = {}
    for name, value in state.items():
        if isinstance(value, Tensor):
            tensors[prefix + name] = value
        elif isinstance(value, Mapping):
            tensors |= _tensors(value, f"{prefix}{name}.")
    return tensors
