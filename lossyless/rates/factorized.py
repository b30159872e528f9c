"""The factorized prior, a learned density for each dimension, and the rate under this prior."""

import copy
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from lossyless._compressai import EntropyBottleneck
from lossyless.coding.tables import MAX_LISTED, PMF_ONE, CDFTables
from lossyless.rates.column_coded import ColumnCodedRate
from lossyless.rates.likelihoods import MIN_LIKELIHOOD, LowerBound, factorized_likelihood

MAX_QUANTILE = 2.0**30  # cells are int32
BISECTIONS = 84  # from 2^31 to a precision of 2^-53
# scale of a logistic distribution with standard deviation 1
LOGISTIC_SCALE = math.sqrt(3) / math.pi
MIN_PRIOR_SCALE = 0.05  # in cells, for dimensions that hardly ever leave the central cell


class FactorizedModel(EntropyBottleneck):
    """CompressAI's factorized prior (Balle et al. 2018, arXiv:1802.01436, appendix 6.1).

    `make_tables` finds the quantiles by bisection, which is exact and takes milliseconds, so they
    need no auxiliary optimiser and no gradient.
    """

    def __init__(self, n_channels: int):
        super().__init__(n_channels)
        self.likelihood_lower_bound = LowerBound(MIN_LIKELIHOOD)
        # Whether `make_tables` keeps the quantiles, and thus the centres of the cells and z_hat,
        # rather than moving the centres to the medians. The official format computes its tables
        # from the quantiles: files in both formats have the same z_hat only if quantiles are kept.
        self.are_centres_fixed = False
        self.generator: torch.Generator | None = None  # draws noise; None: torch's global generator
        self.quantiles.requires_grad_(False)
        # Rates save their `CDFTables`. If CompressAI's copies were saved too, the tensor shapes in
        # a checkpoint would depend on when it was saved.
        for name in ("_offset", "_quantized_cdf", "_cdf_length"):
            self.register_buffer(name, torch.IntTensor(), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Quantise x [B, n_channels], or add noise in training; also return the likelihoods.

        As in CompressAI, x may have more dimensions, [B, n_channels, ...].
        """
        mode = "noise" if self.training else "dequantize"
        channels_first = x.transpose(0, 1)
        values = self.quantize(channels_first.flatten(1)[:, None], mode, self._get_medians())
        values = values.view_as(channels_first).transpose(0, 1)
        return values, self.likelihoods(values)

    def likelihoods(self, values: Tensor) -> Tensor:
        """Probabilities, bounded below, of cells centred at values [B, n_channels, ...]."""
        channels_first = values.transpose(0, 1)
        rows = channels_first.flatten(1)[:, None]
        likelihoods = factorized_likelihood(rows, self.matrices, self.biases, self.factors)
        return self.likelihood_lower_bound(likelihoods).view_as(channels_first).transpose(0, 1)

    def quantize(self, inputs: Tensor, mode: str, means: Tensor | None = None) -> Tensor:
        if mode == "noise":
            noise = torch.empty_like(inputs, memory_format=torch.contiguous_format)
            return inputs + noise.uniform_(-0.5, 0.5, generator=self.generator)
        return super().quantize(inputs, mode, means)

    @torch.no_grad()
    def make_tables(self) -> CDFTables:
        """Make tables whose expected code length is at most about 0.1 % above the entropy.

        Even in float64 on the CPU, the last digits differ between machines. All choices are made
        with integers, after rounding to units of 2^-24, so that the probability that tables differ
        is below 1 in 1,000. If they do differ, files are safe: tables are part of the fingerprint
        in each file, so reading a file with other tables raises an error.
        """
        exact = copy.deepcopy(self).cpu().double()
        quantiles = exact._bisect(exact.target)
        if not self.are_centres_fixed:
            self.quantiles[:, 0] = quantiles.to(self.quantiles)
        # cells lie around the stored centres, which are rounded to float32
        low, median, high = (quantiles - self.centres().cpu().double()[:, None]).round().T.long()
        first = torch.maximum(low, median - MAX_LISTED // 2)
        last = torch.minimum(high, median + MAX_LISTED // 2)
        symbols = first[:, None] + torch.arange(int((last - first).max()) + 1)
        pmf = exact._probabilities(symbols + self.centres().cpu().double()[:, None])
        units = torch.round(pmf * PMF_ONE).long()
        return CDFTables.from_pmf(units.numpy(), first.numpy(), (median - first).numpy())

    @torch.no_grad()
    def shift(self, offset: Tensor) -> None:
        """Shift the densities: x now has the density that x + offset [n_channels] had."""
        slopes = F.softplus(self.matrices[0])
        self.biases[0].add_(slopes * offset[:, None, None])

    def _bisect(self, logits: Tensor) -> Tensor:
        """Values [n_channels, K] at which the cumulative distribution has the given logits [K].

        CompressAI's own search has a precision of 1e-4 and cannot find values above 1e5.
        """
        low = torch.full((self.channels, 1, len(logits)), -MAX_QUANTILE, dtype=logits.dtype)
        high = -low
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            is_below = self._logits_cumulative(middle, stop_gradient=True) < logits
            low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
        return high[:, 0]

    def _probabilities(self, values: Tensor) -> Tensor:
        """Probabilities of adjacent cells of width 1 centred at values, both [n_channels, n]."""
        edges = torch.cat([values - 0.5, values[:, -1:] + 0.5], dim=1)
        return self._logits_cumulative(edges[:, None], stop_gradient=True).sigmoid()[:, 0].diff()

    def centres(self) -> Tensor:
        """Centres of the cells whose symbol is 0, [n_channels]."""
        return self.quantiles[:, 0, 1]


class HFactorized(ColumnCodedRate):
    """H_q[Z] under a learned, fully factorized prior: every dimension has its own density.

    Parameters: see `EntropyCodedRate`.
    """

    format_name = "factorized"

    def __init__(self, z_dim: int, **kwargs):
        super().__init__(z_dim, **kwargs)
        self.prior = FactorizedModel(z_dim)

    def _start_models(self, deviations: Tensor) -> None:
        """Fit the densities' widths to data: learning them would take most of the training time.

        CompressAI gives all layers the same slope, so that a density starts as a logistic
        distribution with scale `init_scale`. Here, the first layer's slope sets the scale.
        """
        scales = (deviations * LOGISTIC_SCALE).clamp(min=MIN_PRIOR_SCALE)
        first = self.prior.matrices[0]  # [z_dim, hidden, 1], before the softplus
        common = self.prior.init_scale ** (-1 / len(self.prior.matrices)) / first.shape[1]
        slopes = common * self.prior.init_scale / scales.to(first)[:, None, None]
        first.copy_(slopes + torch.log(-torch.expm1(-slopes)))

    def _add_noise(self, z_in: Tensor) -> Tensor:
        return self.prior.quantize(z_in.T, "noise").T

    def _likelihoods(self, z_hat_in: Tensor) -> Tensor:
        return self.prior.likelihoods(z_hat_in)

    def _make_tables(self) -> dict[str, CDFTables]:
        return {"z": self.prior.make_tables()}

    @property
    def centres(self) -> Tensor:
        return self.prior.centres()
