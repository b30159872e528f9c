"""The rate with the factorized prior, which is the shortest of those with an entropy model."""

import math

import numpy as np
import torch
from torch import Tensor

from lossyless.coding.tables import CDFTables
from lossyless.distributions import Conditional
from lossyless.rates.base import RateOutput
from lossyless.rates.entropy_coded import ColumnCodedRate
from lossyless.rates.prior import FactorizedModel

LOGISTIC_SCALE = math.sqrt(3) / math.pi  # of a logistic distribution with standard deviation 1
MIN_PRIOR_SCALE = 0.05  # cells; of dimensions that hardly ever leave the cell in the middle


class HFactorized(ColumnCodedRate):
    """H_q[Z] under a learnt, fully factorized prior: every dimension has a density of its own.

    Parameters: see `EntropyCodedRate`.
    """

    format_name = "factorized"

    def __init__(self, z_dim: int, **kwargs):
        super().__init__(z_dim, **kwargs)
        self.prior = FactorizedModel(z_dim)

    def _start_models(self, deviations: Tensor) -> None:
        """Make each density as wide as its dimension: otherwise that takes most of the training.

        Layers start with the same slope each; their product is that of a logistic distribution of
        scale `init_scale`.
        """
        scales = (deviations * LOGISTIC_SCALE).clamp(min=MIN_PRIOR_SCALE)
        first = self.prior.matrices[0]  # [z_dim, hidden, 1], used through a softplus
        common = self.prior.init_scale ** (-1 / len(self.prior.matrices)) / first.shape[1]
        slopes = common * self.prior.init_scale / scales.to(first)[:, None, None]
        first.copy_(slopes + torch.log(-torch.expm1(-slopes)))

    def _bottleneck(self, z: Tensor, p_ZlX: Conditional | None) -> RateOutput:
        z_hat_in, q_z = self.prior(self._to_bottleneck(z))
        rates = -q_z.log().sum(-1)
        return self._from_bottleneck(z_hat_in), rates, {"H_q_Z": rates.mean().detach()}

    def _make_tables(self) -> dict[str, CDFTables]:
        return {"z": self.prior.make_tables()}

    def _to_cells(self, z_in: Tensor) -> np.ndarray:
        return self.prior.to_cells(z_in)

    def _from_cells(self, symbols: np.ndarray) -> Tensor:
        return self.prior.from_cells(symbols)
