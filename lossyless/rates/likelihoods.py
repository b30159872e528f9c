"""Likelihoods of CompressAI's entropy models in about a third of its operations.

At the sizes of this project, a GPU takes longer to launch them than to compute them. None of them
reads a result back, so the host never waits for the GPU.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from lossyless import _compressai

MIN_LIKELIHOOD = 1e-9  # bounds likelihoods, as in CompressAI

sigmoid_backward = torch.ops.aten.sigmoid_backward
tanh_backward = torch.ops.aten.tanh_backward
threshold_backward = torch.ops.aten.threshold_backward


def factorized_likelihood(
    values: Tensor, matrices: Sequence[Tensor], biases: Sequence[Tensor], factors: Sequence[Tensor]
) -> Tensor:
    """Probabilities [C, 1, B] of cells of width 1 about `values`, under a factorized prior.

    Parameters
    ----------
    values : [C, 1, B].
    matrices : [C, n_out, n_in] of each layer, through a softplus.
    biases : [C, n_out, 1] of each layer.
    factors : [C, n_hidden, 1] of each hidden layer, through a tanh; all have the same width.
    """
    weights = _on_all(F.softplus, matrices)
    return _FactorizedLikelihood.apply(values, torch.stack([*factors]).tanh(), *weights, *biases)


def _on_all(function: Callable[[Tensor], Tensor], tensors: Sequence[Tensor]) -> list[Tensor]:
    """Apply an elementwise function to all tensors at once."""
    results = function(torch.cat([tensor.flatten() for tensor in tensors]))
    parts = results.split([tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


class _FactorizedLikelihood(Function):
    """c(value + 1/2) - c(value - 1/2) for the cumulative distribution c(x) = sigmoid(a_L), with

        h_0 = x,   a_k = W_k h_(k-1) + b_k,   h_k = a_k + f_k tanh(a_k).

    Both edges of the cells go through the layers together. Hidden layers are equally wide, so their
    gradients are computed together, too.
    """

    @staticmethod
    def forward(ctx, values: Tensor, factors: Tensor, *layers: Tensor) -> Tensor:
        weights, biases = layers[: len(layers) // 2], layers[len(layers) // 2 :]
        hidden, tanhs = [torch.cat([values - 0.5, values + 0.5], dim=-1)], []
        for factor, weight, bias in zip(factors, weights, biases, strict=False):
            logits = torch.baddbmm(bias, weight, hidden[-1])
            tanhs.append(logits.tanh())
            hidden.append(torch.addcmul(logits, factor, tanhs[-1]))
        cumulative = torch.baddbmm(biases[-1], weights[-1], hidden[-1]).sigmoid()
        ctx.save_for_backward(cumulative, factors, *weights, *hidden, *tanhs)
        lower, upper = cumulative.chunk(2, dim=-1)
        return upper - lower

    @staticmethod
    @once_differentiable
    def backward(ctx, by_likelihood: Tensor) -> tuple[Tensor, ...]:
        cumulative, factors, *saved = ctx.saved_tensors
        n = len(factors)
        weights, edges, hidden, tanhs = (
            saved[: n + 1],
            saved[n + 1],
            torch.stack(saved[n + 2 : 2 * n + 2]),
            torch.stack(saved[2 * n + 2 :]),
        )
        by_cumulative = torch.cat([-by_likelihood, by_likelihood], dim=-1)
        by_last = by_logits = sigmoid_backward(by_cumulative, cumulative)
        slopes = tanh_backward(factors, tanhs)
        by_all_hidden, by_all_logits = [], []
        for k in reversed(range(n)):
            by_hidden = torch.bmm(weights[k + 1].mT, by_logits)
            by_logits = torch.addcmul(by_hidden, by_hidden, slopes[k])
            by_all_hidden.insert(0, by_hidden)
            by_all_logits.insert(0, by_logits)
        by_lower, by_upper = torch.bmm(weights[0].mT, by_logits).chunk(2, dim=-1)
        by_hidden, by_logits = torch.stack(by_all_hidden), torch.stack(by_all_logits)
        return (
            by_lower + by_upper,
            torch.linalg.vecdot(by_hidden, tanhs)[..., None],
            torch.bmm(by_logits[0], edges.mT),
            *torch.matmul(by_logits[1:], hidden[:-1].mT),
            torch.bmm(by_last, hidden[-1].mT),
            *by_logits.sum(-1, keepdim=True),
            by_last.sum(-1, keepdim=True),
        )


def gaussian_likelihood(values: Tensor, scales: Tensor) -> Tensor:
    """Probabilities of cells of width 1 about `values`, under Gaussians of mean 0, all [B, D]."""
    distances = values.abs()  # the upper tail has the higher numerical precision
    edges = torch.stack([distances - 0.5, distances + 0.5]) / scales
    lower, upper = (0.5**0.5 * edges).erfc()
    return 0.5 * (lower - upper)


class LowerBound(_compressai.LowerBound):
    """max(x, bound), whose gradient also passes where it increases an x below the bound."""

    def __init__(self, bound: float):
        super().__init__(bound)
        self._bound = self.bound.item()  # reading the buffer would wait for the GPU

    def forward(self, x: Tensor) -> Tensor:
        return _LowerBound.apply(x, self._bound)


class _LowerBound(Function):
    @staticmethod
    def forward(ctx, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bound = bound
        return x.clamp(min=bound)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return torch.minimum(gradient, threshold_backward(gradient, x, ctx.bound)), None
