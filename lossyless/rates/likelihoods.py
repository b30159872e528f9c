"""Likelihoods of CompressAI's entropy models, with about a third as many operations.

At this project's sizes, launching a kernel on a GPU takes longer than running it. No function
here reads a result back, so the host never waits for the GPU.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from lossyless import _compressai

MIN_LIKELIHOOD = 1e-9  # lower bound on likelihoods, as in CompressAI

sigmoid_backward = torch.ops.aten.sigmoid_backward
tanh_backward = torch.ops.aten.tanh_backward
threshold_backward = torch.ops.aten.threshold_backward


def factorized_likelihood(
    values: Tensor, matrices: Sequence[Tensor], biases: Sequence[Tensor], factors: Sequence[Tensor]
) -> Tensor:
    """Probabilities [C, 1, B] of cells of width 1 centred at `values`, under a factorized prior.

    Parameters
    ----------
    values : [C, 1, B].
    matrices : [C, n_out, n_in] of each layer, before the softplus.
    biases : [C, n_out, 1] of each layer.
    factors : [C, n_hidden, 1] of each hidden layer, before the tanh; these layers are equally wide.
    """
    weights = _on_all(F.softplus, matrices)
    factors = torch.stack(list(factors))  # torch.compile (2.11) cannot unpack a ParameterList
    return _FactorizedLikelihood.apply(values, factors.tanh(), *weights, *list(biases))


def _on_all(function: Callable[[Tensor], Tensor], tensors: Sequence[Tensor]) -> list[Tensor]:
    """Apply an elementwise function to all tensors at once."""
    results = function(torch.cat([tensor.flatten() for tensor in tensors]))
    parts = results.split([tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


def _sides(values: Tensor) -> Tensor:
    """Edges of a cell relative to its centre, -1/2 and 1/2, created on the device of `values`."""
    return torch.linspace(-0.5, 0.5, 2, dtype=values.dtype, device=values.device)


class _FactorizedLikelihood(Function):
    """c(value + 1/2) - c(value - 1/2) for the cumulative distribution c(x) = sigmoid(a_L), with

        h_0 = x,   a_k = W_k h_(k-1) + b_k,   h_k = a_k + f_k tanh(a_k).

    Both edges of each cell go through the layers together. Hidden layers are equally wide, so their
    gradients are also computed together.
    """

    @staticmethod
    def forward(ctx, values: Tensor, factors: Tensor, *layers: Tensor) -> Tensor:
        weights, biases = layers[: len(layers) // 2], layers[len(layers) // 2 :]
        edges = (values[:, :, None] + _sides(values)[:, None]).flatten(2)
        hidden = edges.new_empty(*factors.shape[:-1], edges.shape[-1])  # [n_hidden, C, n, 2 B]
        tanhs = torch.empty_like(hidden)
        logits = torch.baddbmm(biases[0], weights[0], edges)
        for k, factor in enumerate(factors):
            torch.tanh(logits, out=tanhs[k])
            torch.addcmul(logits, factor, tanhs[k], out=hidden[k])
            logits = torch.baddbmm(biases[k + 1], weights[k + 1], hidden[k])
        cumulative = logits.sigmoid()
        ctx.save_for_backward(edges, hidden, tanhs, cumulative, factors, *weights)
        lower, upper = cumulative.chunk(2, dim=-1)
        return upper - lower

    @staticmethod
    @once_differentiable
    def backward(ctx, by_likelihood: Tensor) -> tuple[Tensor, ...]:
        edges, hidden, tanhs, cumulative, factors, *weights = ctx.saved_tensors
        by_sides = sigmoid_backward(by_likelihood[:, :, None], cumulative.unflatten(-1, (2, -1)))
        by_sides[:, :, 0].neg_()
        by_last = by_next = by_sides.flatten(2)
        by_hidden, by_logits = torch.empty_like(hidden), torch.empty_like(hidden)
        slopes = tanh_backward(factors, tanhs)
        for k in reversed(range(len(factors))):
            torch.bmm(weights[k + 1].mT, by_next, out=by_hidden[k])
            by_next = torch.addcmul(by_hidden[k], by_hidden[k], slopes[k], out=by_logits[k])
        by_lower, by_upper = torch.bmm(weights[0].mT, by_next).chunk(2, dim=-1)
        return (
            by_lower + by_upper,
            (by_hidden[..., None, :] @ tanhs[..., None]).squeeze(-1),
            torch.bmm(by_next, edges.mT),
            *torch.matmul(by_logits[1:], hidden[:-1].mT),
            torch.bmm(by_last, hidden[-1].mT),
            *by_logits.sum(-1, keepdim=True),
            by_last.sum(-1, keepdim=True),
        )


def gaussian_likelihood(values: Tensor, scales: Tensor) -> Tensor:
    """Probabilities of width-1 cells centred at `values`, under zero-mean Gaussians, all [B, D]."""
    # the upper tail is numerically more precise
    lower, upper = (0.5**0.5 * (values.abs() + _sides(values)[:, None, None]) / scales).erfc()
    return 0.5 * (lower - upper)


class LowerBound(_compressai.LowerBound):
    """max(x, bound); below the bound, a gradient passes if a descent step would increase x."""

    def __init__(self, bound: float):
        super().__init__(bound)
        self._bound = self.bound.item()  # read once: on a GPU, each read makes the host wait
        # `threshold_backward` passes gradients for x > threshold: use the next float32 below bound
        self._below = float(np.nextafter(np.float32(bound), np.float32(-np.inf)))

    def forward(self, x: Tensor) -> Tensor:
        return _LowerBound.apply(x, self._bound, self._below)


class _LowerBound(Function):
    @staticmethod
    def forward(ctx, x: Tensor, bound: float, below: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.below = below
        return x.clamp(min=bound)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return torch.minimum(gradient, threshold_backward(gradient, x, ctx.below)), None, None
