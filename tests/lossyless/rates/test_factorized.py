"""Coding with the factorized prior's tables costs its entropy, whatever its quantiles."""

import copy

import numpy as np
import pytest
import torch
from helpers.toy import digest_of

from lossyless.coding.ans import TableCoder
from lossyless.coding.tables import MAX_LISTED, CDFTables
from lossyless.rates import HFactorized
from lossyless.rates.entropy_coded import from_cells, to_cells
from lossyless.rates.factorized import FactorizedModel

N_CHANNELS = 6


def make_prior(width: float = 1.0) -> FactorizedModel:
    """A prior whose densities are about 70 x width wide, with centres that are not medians."""
    torch.manual_seed(0)
    prior = FactorizedModel(N_CHANNELS)
    first = prior.matrices[0].data
    first.copy_(torch.nn.functional.softplus(first).div(width).expm1().log())
    prior.quantiles.data[:, 0] = torch.tensor([-3.0, 0.3, 2.0])
    return prior


@torch.no_grad()
def probabilities(prior: FactorizedModel, n: int) -> np.ndarray:
    """Probabilities of the symbols -n ... n, float64 [n_channels, 2 n + 1]."""
    exact = copy.deepcopy(prior).double()
    values = torch.arange(-n, n + 1.0, dtype=torch.double) + exact.centres()[:, None]
    return exact._likelihood(values[:, None])[0][:, 0].numpy()


def is_escaped(tables: CDFTables, symbols: np.ndarray) -> np.ndarray:
    return (symbols < tables.offsets) | (symbols >= tables.offsets + tables.escapes)


def expected_bits(tables, pmf: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Expected bits and escapes per symbol, for each channel."""
    n = pmf.shape[1] // 2
    symbols = np.tile(np.arange(-n, n + 1)[:, None], len(pmf))
    n_bits = TableCoder(tables).information(symbols)
    return (pmf.T * n_bits).sum(0), (pmf.T * is_escaped(tables, symbols)).sum(0)


@pytest.mark.parametrize("are_centres_fixed", [False, True])
def test_tables_are_within_a_thousandth_of_the_entropy_and_escapes_are_rare(are_centres_fixed):
    prior = make_prior(0.1)
    prior.are_centres_fixed = are_centres_fixed
    tables = prior.make_tables()
    pmf = probabilities(prior, 2000)
    entropy = -(pmf * np.log2(np.maximum(pmf, 1e-300))).sum(1)
    n_bits, escapes = expected_bits(tables, pmf)
    assert (n_bits < 1.001 * entropy + 1e-3).all() and (n_bits > entropy - 1e-6).all()
    assert (escapes < 1e-4).all()


def test_fixed_centres_stay_and_others_move_to_the_medians():
    prior = make_prior()
    before = prior.quantiles.clone()
    prior.are_centres_fixed = True
    prior.make_tables()
    assert torch.equal(prior.quantiles, before)
    prior.are_centres_fixed = False
    prior.make_tables()
    with torch.no_grad():
        logits = prior._logits_cumulative(prior.quantiles, stop_gradient=True)
    torch.testing.assert_close(logits[:, 0], prior.target.expand(N_CHANNELS, 3), atol=1e-3, rtol=0)


def test_quantiles_that_are_much_too_narrow_lead_to_no_escapes():
    rate = HFactorized(N_CHANNELS).eval()
    rate.prior = make_prior().eval()
    rate.prior.are_centres_fixed = True
    rate.update()
    z = rate.dequantise(np.random.default_rng(0).integers(-60, 60, (500, N_CHANNELS)))
    symbols = rate.quantise(z)
    assert not is_escaped(rate.tables["z"], symbols).any()
    with torch.no_grad():
        z_hat = rate._from_bottleneck(rate.prior(rate._to_bottleneck(z))[0])
    assert torch.equal(rate.decompress(rate.compress(z), 500), z_hat)


@pytest.mark.parametrize("width", [30.0, 1e3, 1e6])
def test_very_wide_priors_have_short_tables_and_still_code(width):
    prior = make_prior(width)
    tables = prior.make_tables()
    assert (tables.escapes <= MAX_LISTED).all()
    values = prior.centres() + 5 * width * torch.randn(50, N_CHANNELS).round()
    coder, centres = TableCoder(tables), prior.centres()
    decoded = from_cells(coder.decode(coder.encode(to_cells(values, centres)), 50), centres)
    torch.testing.assert_close(decoded, values, atol=0.5, rtol=1e-6)


def test_tables_depend_on_the_density_alone():
    prior, other = make_prior(), make_prior()
    other.quantiles.data[:, 0] = torch.tensor([-100.0, 50.0, 70.0])
    for model in (prior, other, other):
        digest = digest_of(model.make_tables())
        assert digest == digest_of(prior.make_tables())
