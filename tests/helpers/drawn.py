"""Compressors whose codes are known in closed form, for tests of figures."""

import math

import torch
from torch import nn

from lossyless.architectures import CNN, MLP, CNNDecoder, Identity
from lossyless.compressors import LearnableCompressor
from lossyless.distortions import ContrastiveDistortion, DirectDistortion, TargetDistortion
from lossyless.distributions import CondDist
from lossyless.rates import HFactorized
from utils.data.banana import BananaDataModule

CELL_WIDTH = math.exp(-1)  # of an untrained rate


class Norm(nn.Module):
    """z = |x|: the encoder of an ideal VIC under rotations."""

    def __init__(self, in_shape, out_shape):
        super().__init__()

    def forward(self, x):
        return x.norm(dim=1, keepdim=True)


class Ray(Norm):
    """The decoder of an ideal VIC under rotations: the representative whose norm is z."""

    def forward(self, z):
        return -math.sqrt(0.5) * z.expand(-1, 2)


def compressor_of(encoder, in_shape, rate, distortion):
    p_ZlX = CondDist(encoder, in_shape, rate.z_dim, family=rate.family)
    compressor = LearnableCompressor(p_ZlX, rate, distortion, optimizer=None)
    compressor.rate.update()
    return compressor.eval()


def ideal_vic():
    torch.manual_seed(0)
    return compressor_of(
        Norm, (2,), HFactorized(1), DirectDistortion(Ray, 1, (2,), "vector", "representative")
    )


def plain_vc():
    """A VC that keeps x unchanged, so its cells are squares."""
    torch.manual_seed(0)
    return compressor_of(
        Identity, (2,), HFactorized(2), DirectDistortion(Identity, 2, (2,), "vector", "input")
    )


def bince():
    torch.manual_seed(0)
    return compressor_of(Norm, (2,), HFactorized(1), ContrastiveDistortion(1, MLP))


def supervised():
    torch.manual_seed(0)
    distortion = TargetDistortion(Identity, 1, "regression", 1)
    return compressor_of(Norm, (2,), HFactorized(1), distortion)


def image_compressor(needs="representative", rate=HFactorized, z_dim=4):
    torch.manual_seed(0)
    decoder = DirectDistortion(CNNDecoder, z_dim, (1, 16, 16), "bw_image", needs)
    return compressor_of(CNN, (1, 16, 16), rate(z_dim), decoder)


def points(auxiliary="representative", n_eval=3000, **kwargs):
    return BananaDataModule(auxiliary=auxiliary, n_train=1, n_eval=n_eval, **kwargs)
