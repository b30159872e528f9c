"""Rates without an entropy model."""

import math

import numpy as np
import torch
from torch import Tensor

from lossyless.coding.payloads import FloatCoder
from lossyless.distributions import Conditional, kl_to_unit_gaussian
from lossyless.rates.base import Rate, RateOutput


class _FloatCodedRate(Rate):
    """A rate without an entropy model, which stores z as losslessly compressed float32 values."""

    format_name = "floats"

    def quantise(self, z: Tensor) -> np.ndarray:  # float32 [N, z_dim]
        return z.float().cpu().numpy()

    def dequantise(self, symbols: np.ndarray) -> Tensor:
        return torch.from_numpy(symbols)

    def coder(self) -> FloatCoder:
        return FloatCoder(self.z_dim)


class Lossless(_FloatCodedRate):
    """No bottleneck: z_hat = z.

    During evaluation, the rate is the size of the losslessly compressed batch, per example. In
    training, it is the size of the uncompressed values, roughly an upper bound: compressing batches
    would make each step wait for the GPU. The rate has no gradient.
    """

    def _bottleneck(self, z: Tensor, p_ZlX: Conditional | None) -> RateOutput:
        n_bits = 32 * self.z_dim if self.training else 8 * len(self.compress(z)) / len(z)
        rate = n_bits * math.log(2)
        return z, torch.full((len(z),), rate, device=z.device), {}


class MIRate(_FloatCodedRate):
    """Variational upper bound on I[Z;X] with a unit Gaussian marginal: KL[p(Z|x) || N(0, I)].

    This is the rate of an ideal channel simulation, which no entropy coder attains. The coded bits
    reported alongside it are those of z as losslessly compressed float32 values.
    """

    family = "diaggaussian"

    def _bottleneck(self, z: Tensor, p_ZlX: Conditional | None) -> RateOutput:
        if p_ZlX is None:
            raise ValueError("MIRate needs the distribution of z, not just a sample: pass `p_ZlX`")
        rates = kl_to_unit_gaussian(p_ZlX)
        return z, rates, {"I_q_ZX": rates.detach()}
