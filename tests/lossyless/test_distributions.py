"""p(Z|X): samples, parameters, KL."""

import pytest
import torch
import torch.nn.functional as F

from lossyless.architectures import Linear
from lossyless.distributions import (
    CondDist,
    Deterministic,
    DiagGaussian,
    kl_to_unit_gaussian,
)


def test_a_gaussian_encoder_has_twice_the_outputs_and_positive_deviations():
    p_ZlX = CondDist(Linear, (5,), 3, family="diaggaussian")
    x = torch.randn(4, 5)
    parameters = p_ZlX.mapper(x)
    assert parameters.shape == (4, 6)
    torch.testing.assert_close(p_ZlX(x).mean, parameters[:, :3])
    torch.testing.assert_close(
        p_ZlX(x).stddev, F.softplus(parameters[:, 3:]) + DiagGaussian.min_std
    )


def test_the_encoder_standardises_its_images():
    mean, std = [0.5, 0.1], [0.2, 2.0]
    p_ZlX = CondDist(Linear, (2, 3, 3), 4, mean=mean, std=std)
    plain = CondDist(Linear, (2, 3, 3), 4)
    plain.load_state_dict(p_ZlX.state_dict())  # same keys: mean and std are not weights
    x = torch.rand(5, 2, 3, 3)
    standardized = torch.stack([(x[:, c] - mean[c]) / std[c] for c in range(2)], dim=1)
    torch.testing.assert_close(p_ZlX(x).mean, plain(standardized).mean)
    assert all(name.startswith("mapper.") for name in p_ZlX.state_dict())


def test_the_density_stays_finite_for_extreme_parameters():
    p_ZlX = DiagGaussian(torch.tensor([[0.0, -1e4]]))
    assert p_ZlX.log_prob(torch.zeros(1, 1)).isfinite().all()
    assert kl_to_unit_gaussian(p_ZlX).isfinite().all()


def test_kl_has_its_closed_form():
    p_ZlX = DiagGaussian(torch.randn(6, 8))
    mean, std = p_ZlX.mean, p_ZlX.stddev
    closed_form = (0.5 * (std.square() + mean.square() - 1) - std.log()).sum(-1)
    torch.testing.assert_close(kl_to_unit_gaussian(p_ZlX), closed_form)


@pytest.mark.parametrize("family", [Deterministic, DiagGaussian])
def test_detached_distributions_are_equal_but_give_no_gradient(family):
    parameters = torch.randn(3, 4, requires_grad=True)
    p_ZlX = family(parameters)
    assert p_ZlX.rsample().requires_grad and not p_ZlX.detach().rsample().requires_grad
    assert torch.equal(p_ZlX.mean, p_ZlX.detach().mean)


def test_an_unknown_family_raises_an_error():
    with pytest.raises(ValueError, match="'gauss'.*deterministic.*diaggaussian"):
        CondDist(Linear, (5,), 3, family="gauss")
