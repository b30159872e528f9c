"""Likelihoods and their gradients are those of CompressAI's entropy models."""

import pytest
import torch
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from compressai.ops import LowerBound as CompressAIBound

from lossyless.rates.factorized import FactorizedModel
from lossyless.rates.likelihoods import MIN_LIKELIHOOD, LowerBound, gaussian_likelihood

N_CHANNELS = 5
PRECISION = {torch.float32: 4e-6, torch.float64: 1e-13}  # relative to the largest value


def assert_close(ours, theirs, dtype: torch.dtype) -> None:
    for found, expected in zip(ours, theirs, strict=True):
        difference = (found - expected).abs().max()
        assert difference <= PRECISION[dtype] * expected.abs().max()


def make_priors(dtype: torch.dtype) -> tuple[FactorizedModel, EntropyBottleneck]:
    """A prior whose layers all matter, and CompressAI's with the same weights."""
    torch.manual_seed(0)
    ours, theirs = FactorizedModel(N_CHANNELS), EntropyBottleneck(N_CHANNELS)
    for parameter in [*ours.matrices, *ours.biases, *ours.factors]:
        parameter.data += 0.5 * torch.randn_like(parameter)
    ours.quantiles.data += torch.rand_like(ours.quantiles)
    buffers = {n: b for n, b in theirs.state_dict().items() if n not in ours.state_dict()}
    theirs.load_state_dict(ours.state_dict() | buffers)
    return ours.to(dtype), theirs.to(dtype)


@pytest.mark.parametrize("dtype", PRECISION)
@pytest.mark.parametrize("is_training", [True, False])
def test_factorized_prior(dtype, is_training):
    x = 8 * torch.randn(64, N_CHANNELS, dtype=dtype).requires_grad_()
    weights = torch.rand(2, *x.shape, dtype=dtype)
    results = []
    for model in make_priors(dtype):
        torch.manual_seed(1)
        values, likelihoods = model.train(is_training)(x)
        loss = -(weights[0] * likelihoods.log()).sum() + (weights[1] * values).sum()
        trained = [x, *model.matrices, *model.biases, *model.factors]
        results.append((values, likelihoods, *torch.autograd.grad(loss, trained)))
    assert torch.equal(results[0][0], results[1][0])  # the same noise
    assert_close(*results, dtype)


@pytest.mark.parametrize("dtype", PRECISION)
def test_gaussian_conditional(dtype):
    torch.manual_seed(0)
    model, results = GaussianConditional(None), []
    x, mean, scale, weights = torch.rand(4, 64, N_CHANNELS, dtype=dtype)
    x, mean, scale = (t.requires_grad_() for t in (8 * x, 8 * mean, 0.2 + scale))
    for likelihood in (model._likelihood, lambda x, s, m: gaussian_likelihood(x - m, s)):
        likelihoods = likelihood(x, scale, mean)
        gradients = torch.autograd.grad((weights * likelihoods).sum(), [x, scale, mean])
        results.append((likelihoods, *gradients))
    assert_close(*results, dtype)


@pytest.mark.parametrize("bound", [0.5, -256.0, MIN_LIKELIHOOD])
def test_lower_bound(bound):
    at_bound = CompressAIBound(bound).bound
    x = torch.cat([at_bound + torch.linspace(-2, 2, 40), at_bound]).repeat(2).requires_grad_()
    gradient = torch.cat([torch.ones(41), -torch.ones(41)])
    bounded, expected = LowerBound(bound)(x), CompressAIBound(bound)(x)
    assert torch.equal(bounded, expected)
    found = [torch.autograd.grad(y, x, gradient)[0] for y in (bounded, expected)]
    assert torch.equal(*found)
