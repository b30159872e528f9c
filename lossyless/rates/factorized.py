"""What the rates with an entropy model share, and the rate with the factorized prior."""

from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor, nn

from lossyless.cdf_tables import CDFTables
from lossyless.distributions import Conditional
from lossyless.rates.base import Rate, RateOutput
from lossyless.rates.prior import ColumnCoder, FactorizedModel


class EntropyCodedRate(Rate):
    """What the rates with an entropy model share: scaling, tables, coding.

        z --(+ biasing, * exp(scaling))--> z_in --quantise--> z_hat_in --inverse--> z_hat

    Quantisation cells have width 1, so the learnt scaling of each dimension sets its precision.
    """

    def __init__(self, z_dim: int, **kwargs):
        super().__init__(z_dim, **kwargs)
        self.biasing = nn.Parameter(torch.zeros(z_dim))
        self.scaling = nn.Parameter(torch.ones(z_dim))
        self._tables: dict[str, CDFTables] | None = None

    def _to_bottleneck(self, z: Tensor) -> Tensor:
        biasing, scaling = self.biasing, self.scaling
        if self._is_warming_up:
            biasing, scaling = biasing.detach(), scaling.detach()
        return (z + biasing) * scaling.exp()

    def _from_bottleneck(self, z_hat_in: Tensor) -> Tensor:
        if self.training:
            return z_hat_in * (-self.scaling).exp() - self.biasing
        return self._decoded(z_hat_in)

    def _decoded(self, z_hat_in: Tensor) -> Tensor:
        """z_hat as every receiver computes it, to the bit, on the device of `z_hat_in`.

        The exponential, which devices round differently, comes from the CPU; float64, then rounded,
        because devices differ in how they fuse float32 operations.
        """
        cell_width = (-self.scaling.cpu().double()).exp().to(z_hat_in.device)
        biasing = self.biasing.to(z_hat_in.device).double()
        return (z_hat_in.double() * cell_width - biasing).float()

    @abstractmethod
    def _make_tables(self) -> dict[str, CDFTables]: ...

    @torch.no_grad()
    def update(self) -> None:
        self._tables = self._make_tables()

    @property
    def tables(self) -> dict[str, CDFTables]:
        """Integer CDFs of each entropy model, by name."""
        if self._tables is None:
            raise RuntimeError("there are no coding tables yet: call `update()` of the rate first")
        return self._tables

    # The tables travel with the weights: computed anew on another machine, their last digit may
    # differ, and the bytes would not decode.
    def get_extra_state(self) -> dict:
        if self._tables is None:
            return {}
        return {
            name: {
                field: torch.from_numpy(getattr(tables, field).copy())
                for field in ("cdfs", "lengths", "offsets")
            }
            for name, tables in self._tables.items()
        }

    def set_extra_state(self, state: dict) -> None:
        self._tables = {
            name: CDFTables(**{field: tensor.cpu().numpy() for field, tensor in fields.items()})
            for name, fields in state.items()
        } or None

    @torch.no_grad()
    def compress(self, z: Tensor) -> bytes:
        with torch.autocast(z.device.type, enabled=False):
            return self._encode(self._to_bottleneck(z.float()))

    @torch.no_grad()
    def decompress(self, payload: bytes, n_examples: int) -> Tensor:
        return self._decoded(self._decode(payload, n_examples))

    @abstractmethod
    def _encode(self, z_in: Tensor) -> bytes: ...

    @abstractmethod
    def _decode(self, payload: bytes, n_examples: int) -> Tensor: ...


class HFactorized(EntropyCodedRate):
    """H_q[Z] under a learnt, fully factorized prior: every dimension has a density of its own."""

    codec = "factorized"

    def __init__(self, z_dim: int, **kwargs):
        super().__init__(z_dim, **kwargs)
        self.prior = FactorizedModel(z_dim)

    def _bottleneck(self, z: Tensor, p_ZlX: Conditional) -> RateOutput:
        z_hat_in, q_z = self.prior(self._to_bottleneck(z))
        rates = -q_z.log().sum(-1)
        return self._from_bottleneck(z_hat_in), rates, {"H_q_Z": rates.mean().detach()}

    def _make_tables(self) -> dict[str, CDFTables]:
        return {"z": self.prior.make_tables()}

    def _encode(self, z_in: Tensor) -> bytes:
        return self.prior.encode(z_in, self.tables["z"])

    def _decode(self, payload: bytes, n_examples: int) -> Tensor:
        return self.prior.decode(payload, self.tables["z"], n_examples)

    # `compress` and `decompress` in two steps: what follows the network, on any device, and the
    # entropy coder, which worker processes can run

    @torch.no_grad()
    def quantise(self, z: Tensor) -> np.ndarray:
        """Symbols int32 [N, z_dim] of representations [N, z_dim]."""
        with torch.autocast(z.device.type, enabled=False):
            return self.prior.to_cells(self._to_bottleneck(z.float()))

    @torch.no_grad()
    def dequantise(self, symbols: np.ndarray) -> Tensor:
        """z_hat [N, z_dim], float32 on the CPU, of symbols [N, z_dim]."""
        return self._decoded(self.prior.from_cells(symbols))

    def coder(self) -> ColumnCoder:
        """The entropy coder of the symbols, with this rate's tables."""
        return ColumnCoder(self.tables["z"])
