"""Rates: the cost of a representation, in theory (nats) and in practice (bytes).

Every rate is a bottleneck between encoder and distortion:

    z [B, z_dim] --> quantise --> z_hat [B, z_dim]       decoded by the receiver
                        |
                   entropy model q --> rates [B]         -log q(z_hat), nats

In training, quantisation is replaced by additive uniform noise (Balle et al. 2017,
arXiv:1611.01704). In evaluation, z_hat is bit-identical to what the receiver decodes.
"""

from lossyless.rates.base import Rate
from lossyless.rates.column_coded import ColumnCodedRate
from lossyless.rates.entropy_coded import EntropyCodedRate
from lossyless.rates.factorized import HFactorized
from lossyless.rates.hyperprior import HHyper
from lossyless.rates.spatial import HSpatial
from lossyless.rates.uncoded import Lossless, MIRate

__all__ = [
    "ColumnCodedRate",
    "EntropyCodedRate",
    "HFactorized",
    "HHyper",
    "HSpatial",
    "Lossless",
    "MIRate",
    "Rate",
]
