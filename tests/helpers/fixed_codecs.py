"""All codecs, with the same weights on every machine."""

from collections.abc import Callable

import numpy as np
import torch
from scipy.linalg import hadamard
from torch import Tensor, nn

from lossyless.classical import RawPixels
from lossyless.klt_vectors import KLTVectors
from lossyless.rates import EntropyCodedRate, HFactorized, HHyper, HSpatial
from lossyless.vector_codecs import PCAVectors, RawVectors, UniformVectors

Z_DIM, SHAPE = 8, (3, 5, 4)
CODECS: dict[str, Callable[[], nn.Module]] = {
    "factorized": lambda: HFactorized(Z_DIM),
    "factorized_klt": lambda: HFactorized(Z_DIM, transform="klt"),
    "hyperprior": lambda: HHyper(Z_DIM),
    "hyperprior_klt": lambda: HHyper(Z_DIM, transform="klt"),
    "hyperprior_without_means": lambda: HHyper(Z_DIM, side_z_dim=3, is_pred_mean=False),
    "spatial_hyperprior": lambda: HSpatial(Z_DIM, latent_side=2),
    "float16": lambda: RawVectors(Z_DIM),
    "float32": lambda: RawVectors(Z_DIM, "float32"),
    "int3": lambda: UniformVectors(Z_DIM, 3),
    "int8": lambda: UniformVectors(Z_DIM, 8),
    "klt": lambda: KLTVectors(Z_DIM, beta=0.1),
    "klt_clusters": lambda: KLTVectors(Z_DIM, beta=0.1, n_clusters=16),
    "pca": lambda: PCAVectors(Z_DIM, 3),
    "pixels": lambda: RawPixels(SHAPE),
}


def fixed(name: str, shape: tuple[int, ...], unit: float) -> Tensor:
    """Random integers from -255 to 255, the same on every machine, times a unit."""
    rng = np.random.default_rng([*name.encode()])
    return torch.from_numpy(unit * rng.integers(-255, 256, shape).astype(np.float64)).float()


def with_fixed_weights(codec: nn.Module) -> nn.Module:
    for name, parameter in codec.named_parameters():
        parameter.data.add_(fixed(name, tuple(parameter.shape), 2**-10))
    for name, buffer in codec.named_buffers():
        if name == "transform.matrix":  # an exact reflection
            buffer.copy_(torch.eye(len(buffer)) - 2 / len(buffer))
    if isinstance(codec, UniformVectors):
        codec.fit(fixed("extremes", (9, Z_DIM), 2**-5))
    if isinstance(codec, KLTVectors):  # an exactly diagonal covariance: vectors on the axes, or ...
        steps = torch.tensor([*range(-8, 0), *range(1, 9)]).double()
        z = torch.block_diag(*(steps[:, None] * 2.0**-i for i in range(Z_DIM)))
        if codec.n_clusters:  # ... 16 clusters, the corners of a box
            corners = torch.from_numpy(hadamard(Z_DIM) * 2.0 ** -np.arange(Z_DIM))
            z = torch.cat([corners, -corners]).repeat_interleave(16, 0)
        codec.fit(z)
    if isinstance(codec, PCAVectors):
        codec.mean.copy_(fixed("mean", (Z_DIM,), 2**-7))
        codec.axes.copy_(torch.eye(3, Z_DIM))
        codec.is_fitted.fill_(True)
    if isinstance(codec, EntropyCodedRate):
        codec.update()
    return codec.eval()
