"""Bottlenecks to benchmark, vectors to code, and CompressAI's coders for the same models."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from torch import Tensor

from lossyless.rates import EntropyCodedRate, HFactorized, HHyper
from lossyless.rates.hyperprior import LOG_SCALE_STEP, MIN_SCALE, N_SCALES
from lossyless.torch_state import drawing_from

# give a random prior approximately the entropy and table sizes of the released one
NARROWING, TAIL = 12.0, 11.0
N_STEPS, BATCH_SIZE = 300, 256  # for training the hyperprior


@dataclass(frozen=True)
class Bottleneck:
    """A rate with coding tables, and a function that draws vectors for it.

    Attributes
    ----------
    draw : returns n vectors [n, z_dim].
    name : name of the entropy model.
    """

    rate: EntropyCodedRate
    draw: Callable[[int], Tensor]
    name: str

    @torch.no_grad()
    def cross_entropy(self, z: Tensor) -> float:
        """Total bits of z [N, z_dim] under the entropy model."""
        nats = sum(self.rate(part)[1].sum(dtype=torch.double) for part in z.split(BATCH_SIZE))
        return float(nats) / np.log(2)


def make_bottleneck(z_dim: int) -> Bottleneck:
    """A bottleneck with a random prior, approximately as broad as the released one."""
    with drawing_from(torch.Generator().manual_seed(0)):
        rate = HFactorized(z_dim)
    prior = rate.prior.requires_grad_(False)
    torch.nn.init.zeros_(rate.scaling)
    first = prior.matrices[0]  # its softplus multiplies the input, before any bias is added
    first.copy_((F.softplus(first) * NARROWING).expm1().log())
    prior.update(force=True, update_quantiles=True)
    low, median, high = prior.quantiles.unbind(-1)
    tails = torch.maximum(low, median - TAIL), torch.minimum(high, median + TAIL)
    prior.quantiles.copy_(torch.stack([tails[0], median, tails[1]], dim=-1))
    prior.are_centres_fixed = True  # as in the released weights
    rate.update()
    tables = rate.eval().requires_grad_(False).tables["z"]

    def draw(n: int) -> Tensor:
        """Draw vectors with the probabilities in the tables; no symbol is escaped."""
        random, columns = np.random.default_rng(0), []
        for cdf, length, offset in zip(tables.cdfs, tables.lengths, tables.offsets, strict=True):
            listed = cdf[: length - 1]  # without the escape entry, which comes last
            drawn = random.integers(listed[-1], size=n)
            columns.append(np.searchsorted(listed, drawn, side="right") - 1 + offset)
        return rate.dequantise(np.stack(columns, axis=1).astype(np.int32))

    return Bottleneck(rate, draw, "random prior")


def make_hyperprior(z_dim: int, n_steps: int = N_STEPS) -> Bottleneck:
    """A hyperprior trained for a few seconds on Gaussian vectors with random scales."""
    deviations = torch.linspace(0.2, 2, z_dim)

    def draw(n: int, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        volume = torch.randn(n, 1, generator=generator).exp()
        return volume * deviations * torch.randn(n, z_dim, generator=generator)

    with drawing_from(torch.Generator().manual_seed(0)):
        rate = HHyper(z_dim)
        rate.start_from(draw(BATCH_SIZE), cell_width=0.5)
        models = (rate.side_encoder, rate.side_decoder, rate.side_prior)
        trained = [p for model in models for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(trained, lr=1e-3)
        for step in range(n_steps):
            optimizer.zero_grad()
            rate(draw(BATCH_SIZE, seed=step))[1].mean().backward()
            optimizer.step()
    rate.eval().requires_grad_(False).update()
    return Bottleneck(rate, draw, "hyperprior")


class CompressAI:
    """CompressAI's coders and tables for the entropy models of a rate.

    Parameters
    ----------
    is_batched : code a batch as one stream, as if it were an image; otherwise, each vector gets
        its own stream, as in the paper's code.
    """

    def __init__(self, rate: EntropyCodedRate, *, is_batched: bool):
        self.rate, self.is_batched = rate, is_batched
        prior = rate.prior if isinstance(rate, HFactorized) else rate.side_prior
        self.prior: EntropyBottleneck = copy.deepcopy(prior)
        self.prior.update(force=True)
        scales = MIN_SCALE * (torch.arange(N_SCALES) * LOG_SCALE_STEP).exp()
        self.conditional = GaussianConditional(scales.tolist())
        self.conditional.update()

    @torch.no_grad()
    def encode(self, z: Tensor) -> list[list[bytes]]:
        """Streams that encode z [N, z_dim] and, for a hyperprior, the side information."""
        z_in = self.rate._to_bottleneck(z)
        if isinstance(self.rate, HFactorized):
            return [self.prior.compress(self._images(z_in))]
        side = self.prior.compress(self._images(self.rate.side_encoder(z_in)))
        means, indexes = self._gaussian(side, len(z))
        return [self.conditional.compress(self._images(z_in), indexes, means=means), side]

    @torch.no_grad()
    def decode(self, streams: list[list[bytes]], n: int) -> Tensor:
        """z_hat [n, z_dim], float32."""
        if isinstance(self.rate, HFactorized):
            z_hat_in = self.prior.decompress(streams[0], (n, 1) if self.is_batched else (1, 1))
        else:
            means, indexes = self._gaussian(streams[1], n)
            z_hat_in = self.conditional.decompress(streams[0], indexes, means=means)
        return self.rate._from_bottleneck(self._vectors(z_hat_in))

    def _gaussian(self, side: list[bytes], n: int) -> tuple[Tensor, Tensor]:
        """Means and indices into the scale table, in the shape that the coder expects."""
        s_hat = self.prior.decompress(side, (n, 1) if self.is_batched else (1, 1))
        mean, scale = self.rate._gaussian(self.rate.side_decoder, self._vectors(s_hat))
        return self._images(mean), self.conditional.build_indexes(self._images(scale))

    def _images(self, vectors: Tensor) -> Tensor:
        """Reshape [N, D] to [1, D, N, 1] or [N, D, 1, 1]; each image gets a stream."""
        return vectors.T[None, ..., None] if self.is_batched else vectors[..., None, None]

    def _vectors(self, images: Tensor) -> Tensor:
        return images[0, ..., 0].T if self.is_batched else images[..., 0, 0]
