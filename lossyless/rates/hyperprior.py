"""The mean-scale hyperprior: Gaussians predicted from coded side information.

Minnen et al. 2018, arXiv:1809.02736, without the autoregressive part, for vectors:

    z_in --side encoder--> s --factorized prior--> s_hat --side decoder--> mean, scale [B, z_dim]
      |                                                                       |
      +------------------ round(z_in - mean) + mean = z_hat_in <--------------+

    rate = H_q[S] + H_q[Z|S]
"""

import copy
import math

import numpy as np
import torch
from torch import Tensor, nn

from lossyless._compressai import GaussianConditional
from lossyless.architectures import MLP
from lossyless.coding.ans import TableCoder
from lossyless.coding.payloads import CodingError, decode_blobs, encode_blobs
from lossyless.coding.tables import CDFTables
from lossyless.distributions import Conditional
from lossyless.rates.base import RateOutput
from lossyless.rates.entropy_coded import EntropyCodedRate, from_cells, to_cells
from lossyless.rates.factorized import FactorizedModel
from lossyless.rates.likelihoods import MIN_LIKELIHOOD, LowerBound, gaussian_likelihood

# CompressAI's table of 64 standard deviations, evenly spaced on a logarithmic scale
MIN_SCALE, MAX_SCALE, N_SCALES = 0.11, 256.0, 64
LOG_SCALE_STEP = math.log(MAX_SCALE / MIN_SCALE) / (N_SCALES - 1)
# Evaluation rounds predicted means to multiples of 1/64: coarse enough that float64 results from
# different machines round to the same value, fine enough to cost no bits with cells of width 1.
MEAN_STEPS = 64


class HHyper(EntropyCodedRate):
    """H_q[S] + H_q[Z|S] with a mean-scale hyperprior.

    Parameters
    ----------
    z_dim : dimensions of the representation.
    factor_dim : the side information has max(10, z_dim // factor_dim) dimensions.
    side_z_dim : dimensions of the side information; overrides `factor_dim`.
    is_pred_mean : whether means are predicted; otherwise they are 0.
    transform, rdo, warmup_k_epoch, is_end_to_end : see `EntropyCodedRate`.
    """

    format_name = "hyperprior"

    def __init__(
        self,
        z_dim: int,
        factor_dim: int = 5,
        side_z_dim: int | None = None,
        is_pred_mean: bool = True,
        **kwargs,
    ):
        super().__init__(z_dim, **kwargs)
        self.is_pred_mean = is_pred_mean
        if factor_dim < 1:
            raise ValueError(f"factor_dim={factor_dim}: expected at least 1")
        if side_z_dim is None:
            side_z_dim = max(10, z_dim // factor_dim)
        if side_z_dim < 1:
            raise ValueError(f"side_z_dim={side_z_dim}: expected a positive integer, or None")
        hid_dim = max(z_dim, 256)
        self.side_encoder = MLP((z_dim,), (side_z_dim,), hid_dim)
        self.side_decoder = MLP((side_z_dim,), (z_dim * (1 + is_pred_mean),), hid_dim)
        self.side_prior = FactorizedModel(side_z_dim)
        self.conditional = GaussianConditional(None)
        self.conditional.likelihood_lower_bound = LowerBound(MIN_LIKELIHOOD)
        self.lower_bound, self.upper_bound = LowerBound(MIN_SCALE), LowerBound(-MAX_SCALE)

    def _bottleneck(self, z: Tensor, p_ZlX: Conditional | None) -> RateOutput:
        z_in = self._to_bottleneck(z)
        if self.training:
            s_hat, q_s = self.side_prior(self.side_encoder(z_in))
            mean, scale = self._gaussian(self.side_decoder, s_hat)
            z_hat_in = self.conditional.quantize(z_in, "noise")
        else:
            s_hat, q_s = self.side_prior(self._coding_side(z_in))
            mean, index = self._coding_gaussian(s_hat)
            mean = mean.to(z.device)
            scale = MIN_SCALE * (LOG_SCALE_STEP * index.to(z.device).float()).exp()
            z_hat_in = self._received(z_in, mean, "z", _rows(index))
        q_zls = gaussian_likelihood(z_hat_in - mean, scale)
        q_zls = self.conditional.likelihood_lower_bound(q_zls)
        H_q_S, H_q_ZlS = -q_s.log().sum(-1), -q_zls.log().sum(-1)
        terms = {"H_q_S": H_q_S.detach(), "H_q_ZlS": H_q_ZlS.detach()}
        return self._from_bottleneck(z_hat_in), H_q_S + H_q_ZlS, terms

    def _gaussian(self, side_decoder: nn.Module, s_hat: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and scale, [B, z_dim] each."""
        parameters = side_decoder(s_hat)
        if self.is_pred_mean:
            mean, scale = parameters.chunk(2, dim=-1)
        else:
            mean, scale = torch.zeros_like(parameters), parameters
        # unlike a clamp, these bounds pass gradients that move scales back into the range
        return mean, -self.upper_bound(-self.lower_bound(scale))

    @torch.no_grad()
    def _coding_side(self, z_in: Tensor) -> Tensor:
        """Side information [B, side_z_dim] of z_in [B, z_dim], before quantisation.

        It is computed in float64, so that rounding does not depend on the batch size.
        """
        side_encoder = copy.deepcopy(self.side_encoder).double()
        return side_encoder(z_in.double()).to(z_in.dtype)

    @torch.no_grad()
    def _coding_gaussian(self, s_hat: Tensor) -> tuple[Tensor, Tensor]:
        """Means (float32) and indices into the scale table (int), [B, z_dim] each, on the CPU.

        Computed in float64 on the CPU and rounded, so that sender and receiver agree to the last
        bit on every device and for every batch size.
        """
        side_decoder = copy.deepcopy(self.side_decoder).cpu().double()
        mean, scale = self._gaussian(side_decoder, s_hat.detach().cpu().double())
        index = torch.round((scale / MIN_SCALE).log() / LOG_SCALE_STEP).int()
        return (torch.round(mean * MEAN_STEPS) / MEAN_STEPS).float(), index

    def _make_tables(self) -> dict[str, CDFTables]:
        scales = MIN_SCALE * (torch.arange(N_SCALES) * LOG_SCALE_STEP).exp()
        conditional = GaussianConditional(scales.tolist())
        conditional.update()
        return {
            "side": self.side_prior.make_tables(),
            "z": CDFTables.from_compressai(conditional),
        }

    def compress(self, z: Tensor) -> bytes:
        z_in = self._to_coder(z.float())
        centres = self.side_prior.centres()
        side = to_cells(self._coding_side(z_in), centres)
        mean, index = self._coding_gaussian(from_cells(side, centres))
        symbols = self._choose(z_in, mean.to(z_in.device), "z", _rows(index))
        return encode_blobs(
            [
                TableCoder(self.tables["side"]).encode(side),
                TableCoder(self.tables["z"]).encode(symbols, _rows(index)),
            ]
        )

    def decompress(self, payload: bytes, n_examples: int) -> Tensor:
        streams = decode_blobs(payload)
        if len(streams) != 2:
            raise CodingError(f"expected 2 streams (side information, z), found {len(streams)}")
        side = TableCoder(self.tables["side"]).decode(streams[0], n_examples)
        mean, index = self._coding_gaussian(from_cells(side, self.side_prior.centres()))
        symbols = TableCoder(self.tables["z"]).decode(streams[1], n_examples, _rows(index))
        return self._decoded(from_cells(symbols, mean.to(self.scaling.dtype)))


def _rows(index: Tensor) -> np.ndarray:
    return index.numpy().astype(np.int16)
