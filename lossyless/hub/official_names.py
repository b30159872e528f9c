"""Names that code written for the official hub uses, for what has other names here."""

import torch
from torch import Tensor, nn

from lossyless.hub.official_format import OfficialCoder
from lossyless.rates import HFactorized


class OfficialNames:
    """Attributes and methods of the official compressor, as views of `rate` and `official`.

        z [B, z_dim] --process_z_in--> z_in [B, z_dim, 1, 1] --entropy_bottleneck--> z_hat_in
        z_hat_in [B, z_dim, 1, 1] --process_z_out--> z_hat [B, z_dim]

    The bottleneck and what goes through it are on the CPU, whatever `device` is, so that all
    machines quantise alike.
    """

    rate: HFactorized
    official: OfficialCoder
    device: torch.device

    @property
    def entropy_bottleneck(self) -> nn.Module:
        """CompressAI's model; its `compress(z_in)` gives the streams of `compress`."""
        return self.official.bottleneck

    @property
    def scaling(self) -> Tensor:
        return self.rate.scaling.to(self.device)

    @property
    def biasing(self) -> Tensor:
        return self.rate.biasing.to(self.device)

    @property
    def side_z_dim(self) -> int:
        """A fifth of `z_dim`. A factorized bottleneck has no side information: nothing uses it."""
        return self.rate.z_dim // 5

    @torch.no_grad()
    def process_z_in(self, z: Tensor) -> Tensor:
        """Features [B, z_dim] to what `entropy_bottleneck` takes, [B, z_dim, 1, 1]."""
        return self.rate._to_bottleneck(z.float().cpu())[..., None, None]

    @torch.no_grad()
    def process_z_out(self, z_hat_in: Tensor) -> Tensor:
        """What `entropy_bottleneck` gives, [B, z_dim, 1, 1], to z_hat [B, z_dim]."""
        return self.rate._from_bottleneck(z_hat_in.cpu()[..., 0, 0]).to(self.device)

    def make_pickable_(self) -> None:
        """Nothing: every compressor can be pickled."""

    def undo_pickable_(self) -> None:
        """Nothing, as `make_pickable_`."""
