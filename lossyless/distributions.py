"""p(Z|X): stochastic and deterministic encoders, and their divergence from a unit Gaussian."""

from collections.abc import Sequence
from numbers import Integral
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Independent, Normal, kl_divergence

from lossyless.architectures import Architecture, Standardize
from lossyless.architectures.mlp import Shape


class Conditional(Protocol):
    """A batch of distributions over vectors, one per example."""

    mean: Tensor  # [B, z_dim]

    def rsample(self) -> Tensor: ...  # [B, z_dim], differentiable

    def detach(self) -> "Conditional": ...  # detached from the encoder


class Deterministic:
    """A batch of point masses: Z is a function of X."""

    n_parameters = 1

    def __init__(self, value: Tensor):  # [B, z_dim]
        self.mean = value

    def rsample(self) -> Tensor:
        return self.mean

    def detach(self) -> "Deterministic":
        return Deterministic(self.mean.detach())


class DiagGaussian(Independent):
    """Gaussian with diagonal covariance; standard deviations are softplus(output) + `min_std`."""

    n_parameters = 2
    # keeps the density finite when the encoder drives a standard deviation to 0
    min_std = 1e-5

    def __init__(self, parameters: Tensor):  # [B, 2 * z_dim]
        mean, raw_std = parameters.float().chunk(2, dim=-1)
        std = F.softplus(raw_std) + self.min_std
        # validation would make the host wait for the GPU
        super().__init__(Normal(mean, std, validate_args=False), 1, validate_args=False)
        self.parameters = parameters

    def detach(self) -> "DiagGaussian":
        return DiagGaussian(self.parameters.detach())


FAMILIES = {"deterministic": Deterministic, "diaggaussian": DiagGaussian}


def kl_to_unit_gaussian(p_ZlX: Independent) -> Tensor:
    """KL[p(Z|x) || N(0, I)] in nats, [B]: an upper bound on I[Z;X] in expectation over X."""
    mean = torch.zeros_like(p_ZlX.mean)
    unit = Normal(mean, torch.ones_like(mean), validate_args=False)
    return kl_divergence(p_ZlX, Independent(unit, 1))


def check_z_dim(z_dim: int) -> None:
    """Raise ValueError unless z_dim is a positive integer."""
    if not isinstance(z_dim, Integral) or z_dim < 1:
        raise ValueError(f"z_dim={z_dim!r} (encoder.z_dim): expected a positive integer")


class CondDist(nn.Module):
    """p(Z|X): a network that maps an example to the parameters of a distribution of Z.

    Parameters
    ----------
    arch : architecture of the encoder ("mapper").
    in_shape : shape of one example X.
    z_dim : dimensions of Z.
    family : "deterministic" or "diaggaussian".
    mean, std : channel statistics used to standardise images before the network; no
        standardisation if both are None.
    """

    def __init__(
        self,
        arch: Architecture,
        in_shape: Shape,
        z_dim: int,
        family: str = "deterministic",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ):
        super().__init__()
        check_z_dim(z_dim)
        if family not in FAMILIES:
            raise ValueError(
                f"unknown family of distributions {family!r}: choose one of {sorted(FAMILIES)}"
            )
        self.family = FAMILIES[family]
        self.standardize = Standardize(in_shape, mean, std)
        self.mapper = arch(in_shape, (z_dim * self.family.n_parameters,))

    def forward(self, x: Tensor) -> Conditional:  # [B, *in_shape]
        return self.family(self.mapper(self.standardize(x)))
