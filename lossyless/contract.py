"""The contract of all compressors, learnt or not.

Data sets become bytes, and bytes become what predictors get:

    x [N, *shape] --represent--> z --compress--> bytes --decompress--> z_hat --receive--> predictor
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn


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
