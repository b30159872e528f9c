"""The hyperprior for latent images: one model for all positions.

Examples are latent images with Z_DIM channels and 3x3 positions.
"""

import math
from functools import partial

import pytest
import torch
from helpers.toy import Z_DIM, draw_z, fit_rate

from lossyless.architectures import Balle, Linear
from lossyless.compressors import LearnableCompressor
from lossyless.distortions import LossyZ
from lossyless.distributions import CondDist
from lossyless.optim import PartOptimizer
from lossyless.rates import HHyper, HSpatial, spatial

SIDE = 3
N_POSITIONS = SIDE**2
ADAM = PartOptimizer(partial(torch.optim.Adam, lr=1e-3))


@pytest.fixture(scope="module")
def hyper():
    """The hyperprior of one position, fitted to vectors from `draw_z`."""
    torch.manual_seed(0)
    return fit_rate(HHyper(Z_DIM), n_steps=30)


@pytest.fixture
def rate(hyper):
    """The same model, applied to every position of latent images."""
    rate = HSpatial(Z_DIM * N_POSITIONS, latent_side=SIDE)
    rate.load_state_dict(hyper.state_dict())
    return rate.eval()


def draw_latents(n, seed=0):
    """Latent images [n, Z_DIM, SIDE, SIDE] whose positions come from `draw_z`."""
    rows = draw_z(n * N_POSITIONS, seed)
    return rows.unflatten(0, (n, SIDE, SIDE)).permute(0, 3, 1, 2).contiguous()


@torch.no_grad()
def evaluate(rate, z):
    """z_hat and rates in evaluation mode."""
    return rate.eval()(z)[:2]


# --- equivalence to the hyperprior of each position


@pytest.mark.parametrize("is_training", [True, False])
def test_it_is_the_hyperprior_of_every_position(rate, hyper, is_training):
    latents = draw_latents(50)
    z, rows = latents.flatten(1), latents.permute(0, 2, 3, 1).flatten(0, 2)
    torch.manual_seed(0)
    z_hat, rates, logs = rate.train(is_training)(z)
    torch.manual_seed(0)
    expected, row_rates, row_logs = hyper.train(is_training)(rows)
    expected = expected.unflatten(0, (50, SIDE, SIDE)).permute(0, 3, 1, 2).flatten(1)
    assert torch.equal(z_hat, expected)
    torch.testing.assert_close(rates, row_rates.unflatten(0, (50, N_POSITIONS)).sum(1))
    for name, value in row_logs.items():
        torch.testing.assert_close(logs[name], value.unflatten(0, (-1, N_POSITIONS)).sum(1))
    torch.testing.assert_close(sum(logs.values()), rates)


def test_positions_of_all_examples_share_one_pair_of_streams(rate, hyper):
    latents = draw_latents(50)
    rows = latents.permute(0, 2, 3, 1).flatten(0, 2)
    assert rate.compress(latents.flatten(1)) == hyper.compress(rows)
    assert rate.format_name != hyper.format_name and rate.fingerprint() != hyper.fingerprint()


def test_training_starts_from_whole_representations():
    z = draw_latents(50).flatten(1)
    rate = HSpatial(Z_DIM * N_POSITIONS, latent_side=SIDE, transform="klt")
    rate.fit_transform(z)
    rate.start_from(z, cell_width=0.5)
    rate.update()
    z_hat, _ = evaluate(rate, z)
    assert (z_hat - z).unflatten(1, (Z_DIM, -1)).norm(dim=1).max() <= 0.26 * math.sqrt(Z_DIM)
    with pytest.raises(ValueError, match=rf"\[N, {Z_DIM * N_POSITIONS}\], found \[50, {Z_DIM}\]"):
        rate.start_from(z[:, :Z_DIM])


def test_options_are_those_of_one_position():
    rate = HSpatial(100 * 4, latent_side=2, factor_dim=2, is_pred_mean=False, warmup_k_epoch=3)
    assert (rate.z_dim, rate.latent_shape) == (400, (100, 2, 2))
    assert rate.side_prior.channels == 50
    assert (rate.is_pred_mean, rate.warmup_k_epoch) == (False, 3)
    assert HSpatial(9, latent_side=3, side_z_dim=2).side_prior.channels == 2


def test_results_do_not_depend_on_the_block_size(rate, monkeypatch):
    z = draw_latents(60).flatten(1)
    payload, (z_hat, rates) = rate.compress(z), evaluate(rate, z)
    for n_rows in (7, 10_000):
        monkeypatch.setattr(spatial, "ROWS_AT_A_TIME", n_rows)
        assert rate.compress(z) == payload
        assert torch.equal(rate.decompress(payload, 60), z_hat)
        assert torch.equal(evaluate(rate, z)[1], rates)


# --- the shape of the latent image


def test_an_impossible_z_dim_raises_an_error():
    for z_dim, latent_side in ((10, 2), (8, 0)):
        with pytest.raises(ValueError, match=f"z_dim={z_dim}.*latent_side={latent_side}"):
            HSpatial(z_dim, latent_side)


def test_encoder_and_rate_must_agree_on_the_latent_image():
    p_ZlX = CondDist(partial(Balle, hid_dim=4), (1, 32, 32), 8)
    with pytest.raises(ValueError, match=r"\(2, 2, 2\), .* \(8, 1, 1\): .*latent_side=2"):
        LearnableCompressor(p_ZlX, HSpatial(8, latent_side=1), LossyZ(), ADAM)
    LearnableCompressor(p_ZlX, HSpatial(8, latent_side=2), LossyZ(), ADAM)
    LearnableCompressor(p_ZlX, HHyper(8), LossyZ(), ADAM)
    LearnableCompressor(CondDist(Linear, (3,), 8), HSpatial(8, latent_side=1), LossyZ(), ADAM)
