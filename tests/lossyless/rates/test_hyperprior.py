"""The mean-scale hyperprior: sender, receiver and rates use the same Gaussians."""

import numpy as np
import pytest
import torch
from helpers.toy import Z_DIM, draw_z
from torch.distributions import Normal

from lossyless.coding.ans import TableCoder
from lossyless.coding.payloads import decode_blobs
from lossyless.distributions import Deterministic
from lossyless.rates import HHyper
from lossyless.rates.entropy_coded import from_cells
from lossyless.rates.hyperprior import LOG_SCALE_STEP, MIN_SCALE, N_SCALES


@pytest.fixture(params=[True, False])
def rate(request):
    """A hyperprior whose means and scales vary strongly between examples."""
    torch.manual_seed(0)
    rate = HHyper(Z_DIM, side_z_dim=6, is_pred_mean=request.param)
    for network in (rate.side_encoder, rate.side_decoder):
        network.out.weight.data *= 2
    rate.update()
    return rate.eval()


def side_of(rate, z):
    """The side information [N, side_z_dim] that is coded with z."""
    side, _ = decode_blobs(rate.compress(z))
    cells = TableCoder(rate.tables["side"]).decode(side, len(z))
    return from_cells(cells, rate.side_prior.centres())


def test_side_information_does_not_depend_on_the_batch_size(rate):
    rate.side_encoder.out.weight.data *= 1000  # values whose float32 errors exceed .001
    z = draw_z(60)
    one_by_one = torch.cat([side_of(rate, example[None]) for example in z])
    assert torch.equal(one_by_one, side_of(rate, z))


def test_rates_use_the_scales_and_means_of_the_coder(rate):
    z = draw_z(100)
    mean, index = rate._coding_gaussian(side_of(rate, z))
    with torch.no_grad():
        _, rates, logs = rate(z, Deterministic(z))
        z_hat_in = torch.round(rate._to_bottleneck(z) - mean).double()
    gaussian = Normal(0.0, MIN_SCALE * (LOG_SCALE_STEP * index.double()).exp())
    # in the lower tail, where float64 resolves small differences
    distance = -z_hat_in.abs()
    q = gaussian.cdf(distance + 0.5) - gaussian.cdf(distance - 0.5)
    expected = -q.clamp(min=1e-9).log().sum(-1)
    assert logs["H_q_ZlS"].mean().item() == pytest.approx(expected.mean().item(), rel=1e-3)
    assert torch.equal(logs["H_q_S"] + logs["H_q_ZlS"], rates)


def test_each_table_is_a_discretised_gaussian_of_its_scale(rate):
    tables = rate.tables["z"]
    assert tables.n_tables == N_SCALES
    for row, scale in ((20, None), (40, None), (63, 256.0)):
        scale = scale or 0.11 * (256 / 0.11) ** (row / 63)
        symbols = np.array([[0], [1], [-1], [int(scale)]])
        n_bits = TableCoder(tables).information(symbols, np.full((4, 1), row))[:, 0]
        gaussian = Normal(0.0, torch.tensor(scale).double())
        values = torch.from_numpy(symbols[:, 0]).double()
        q = gaussian.cdf(values + 0.5) - gaussian.cdf(values - 0.5)
        np.testing.assert_allclose(n_bits, -q.log2(), atol=0.05)


def test_dimensions_of_the_side_information():
    for z_dim, options, side_z_dim in ((128, {}, 25), (8, {}, 10), (8, {"side_z_dim": 3}, 3)):
        assert HHyper(z_dim, **options).side_prior.channels == side_z_dim
    assert HHyper(100, factor_dim=2).side_prior.channels == 50
