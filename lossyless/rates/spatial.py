"""The hyperprior for latent images: one entropy model for all positions."""

import torch
from torch import Tensor

from lossyless.distributions import Conditional, check_z_dim
from lossyless.rates.base import RateOutput
from lossyless.rates.hyperprior import HHyper

# Number of positions that the float64 side networks process at a time, to save memory: with a
# latent side of 8, a chunk of 4096 examples has 262,144 positions of a few kilobytes each.
ROWS_AT_A_TIME = 1 << 14


class HSpatial(HHyper):
    """`HHyper` applied at each position of a flattened latent image.

        z [B, C*s*s] -> vectors of the positions [B*s*s, C] -> HHyper(C) -> back

    The parameters, and therefore the state dict, are those of `HHyper(C)`. Rates are summed over
    positions; all positions of all examples are coded together, in one pair of streams.

    Parameters
    ----------
    z_dim : dimensions of the representation, C * latent_side^2.
    latent_side : side s of the latent image [C, s, s].
    factor_dim, side_z_dim, is_pred_mean : see `HHyper`, for the C dimensions of one position.
    transform, rdo, warmup_k_epoch, is_end_to_end : see `EntropyCodedRate`.
    """

    format_name = "spatial_hyperprior"

    def __init__(self, z_dim: int, latent_side: int, **kwargs):
        check_z_dim(z_dim)
        n_positions = latent_side**2
        if latent_side < 1 or z_dim % n_positions:
            raise ValueError(
                f"z_dim={z_dim} cannot be reshaped to latent images of latent_side={latent_side}: "
                f"expected a multiple of latent_side^2 = {n_positions}"
            )
        n_channels = z_dim // n_positions
        super().__init__(n_channels, **kwargs)
        self.z_dim = z_dim
        #: must equal the encoder's `latent_shape`, if it has one
        self.latent_shape = (n_channels, latent_side, latent_side)
        self.n_positions = n_positions

    def _to_positions(self, z: Tensor) -> Tensor:
        """[B, C*s*s] -> [B*s*s, C]."""
        n_channels = self.latent_shape[0]
        return z.unflatten(1, (n_channels, self.n_positions)).transpose(1, 2).flatten(0, 1)

    def _from_positions(self, rows: Tensor) -> Tensor:
        """[B*s*s, C] -> [B, C*s*s]."""
        return rows.unflatten(0, (-1, self.n_positions)).transpose(1, 2).flatten(1)

    def _bottleneck(self, z: Tensor, p_ZlX: Conditional | None) -> RateOutput:
        rows = self._to_positions(z)
        z_hat, rates, terms = super()._bottleneck(rows, None)
        terms = {name: self._sums(values) for name, values in terms.items()}
        return self._from_positions(z_hat), self._sums(rates), terms

    def _sums(self, values: Tensor) -> Tensor:
        """Sum values [B*s*s] over positions, which gives [B]."""
        return values.unflatten(0, (-1, self.n_positions)).sum(1)

    def _vectors(self, z: Tensor) -> Tensor:
        return self._to_positions(super()._vectors(z))

    def compress(self, z: Tensor) -> bytes:
        return super().compress(self._to_positions(z))

    def decompress(self, payload: bytes, n_examples: int) -> Tensor:
        return self._from_positions(super().decompress(payload, n_examples * self.n_positions))

    # The methods below map rows independently, so slicing saves memory without changing results.

    def _coding_side(self, z_in: Tensor) -> Tensor:
        coding_side = super()._coding_side
        return torch.cat([coding_side(rows) for rows in z_in.split(ROWS_AT_A_TIME)])

    def _coding_gaussian(self, s_hat: Tensor) -> tuple[Tensor, Tensor]:
        coding_gaussian = super()._coding_gaussian
        slices = [coding_gaussian(rows) for rows in s_hat.split(ROWS_AT_A_TIME)]
        means, indices = zip(*slices, strict=True)
        return torch.cat(means), torch.cat(indices)
