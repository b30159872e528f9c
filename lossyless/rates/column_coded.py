"""Rates with one coding table per dimension."""

import math
from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor

from lossyless.base import blocks
from lossyless.coding.ans import TableCoder
from lossyless.distributions import Conditional
from lossyless.rates.base import RateOutput
from lossyless.rates.entropy_coded import EntropyCodedRate, from_cells

# In cell widths; smaller shifts do not matter.
MIN_SHIFT = 1e-3


class ColumnCodedRate(EntropyCodedRate):
    """A rate that codes z_in column by column, with one coding table per column.

    Subclasses set `format_name` and `centres`, and implement `_likelihoods` and `_make_tables`. The
    latter returns {"z": tables of the z_dim columns}, in which symbol k has the probability that
    `_likelihoods` gives to k + centres. This class implements quantisation, evaluation and coding.
    """

    #: centres of the cells whose symbol is 0, float32 [z_dim] on the device of the parameters.
    #: `recentre_constant_dims` modifies them in place: register a buffer, or return a view of one.
    centres: Tensor

    @abstractmethod
    def _likelihoods(self, z_hat_in: Tensor) -> Tensor:
        """Positive probabilities [B, z_dim] of cells of width 1 centred at z_hat_in [B, z_dim].

        In training, the values are noisy, and gradients flow to them and to the parameters.
        """

    def _add_noise(self, z_in: Tensor) -> Tensor:
        """z_hat_in [B, z_dim] for training, with noise instead of quantisation."""
        return z_in + torch.rand_like(z_in) - 0.5

    def _bottleneck(self, z: Tensor, p_ZlX: Conditional | None) -> RateOutput:
        z_in = self._to_bottleneck(z)
        if self.training:
            z_hat_in = self._add_noise(z_in)
        else:
            z_hat_in = self._received(z_in, self.centres, "z")
        rates = -self._likelihoods(z_hat_in).log().sum(-1)
        return self._from_bottleneck(z_hat_in), rates, {"H_q_Z": rates.detach()}

    def quantise(self, z: Tensor) -> np.ndarray:  # int32 [N, z_dim]
        symbols = np.empty(z.shape, np.int32)
        for rows in blocks(len(z)):
            z_in = self._to_coder(z[rows].to(self.z_dtype))
            symbols[rows] = self._choose(z_in, self.centres, "z")
        return symbols

    def dequantise(self, symbols: np.ndarray) -> Tensor:
        z_hat = torch.empty(symbols.shape, dtype=self.z_dtype)
        for rows in blocks(len(symbols)):
            z_hat[rows] = self._decoded(from_cells(symbols[rows], self.centres))
        return z_hat

    def coder(self) -> TableCoder:
        return TableCoder(self.tables["z"])

    @torch.no_grad()
    def recentre_constant_dims(self, z: Tensor) -> None:
        """Shift dimensions in which all z [N, z_dim] share a cell, so that it decodes to the mean.

        Training leaves such values anywhere in the cell, because their position hardly affects the
        rate. The tables stay the same. Call this method after `update`.
        """
        centres = self.centres.cpu()
        low, high, total = math.inf, -math.inf, 0.0
        for rows in blocks(len(z)):
            offsets = self._to_coder(z[rows].to(self.z_dtype)).cpu().double() - centres  # in cells
            low, high = offsets.amin(0).clamp(max=low), offsets.amax(0).clamp(min=high)
            total = total + offsets.sum(0)
        mean = total / len(z)
        fits_one_cell = torch.maximum(high - mean, mean - low) <= 0.5
        is_constant = (low.round() == high.round()) & fits_one_cell
        shift = torch.where(is_constant, mean, 0.0) * self._cell_widths()
        biasing = self.biasing.cpu().double() - shift
        self.biasing.sub_(shift.to(self.biasing))
        # float32 cannot represent a large mean exactly: add the rounding error to the centres
        lost = (self.biasing.cpu() - biasing) / self._cell_widths()
        self.centres.add_(torch.where(lost.abs() > MIN_SHIFT, lost, 0.0).to(self.centres))
