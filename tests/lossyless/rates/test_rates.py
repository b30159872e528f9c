"""Rates: reported rates, coded bytes and decoded values agree."""

import copy
import math

import numpy as np
import pytest
import torch
from helpers.toy import ENTROPY_CODED, RATES, Z_DIM, digest_of, draw_z, fit_rate
from torch import nn
from torch.distributions import Independent, Laplace, Normal, kl_divergence

from lossyless.coding.tables import PMF_ONE, CDFTables
from lossyless.distributions import FAMILIES, Deterministic, DiagGaussian
from lossyless.rates import (
    ColumnCodedRate,
    EntropyCodedRate,
    HFactorized,
    HHyper,
    Lossless,
    MIRate,
)
from lossyless.rates.likelihoods import LowerBound

UNCODED = [rate for rate in RATES if not issubclass(rate, EntropyCodedRate)]


def distributions(rate, n=64, seed=0):
    """Representations [n, Z_DIM] and the distributions they come from, for any rate."""
    mean = draw_z(n, seed)
    if rate.family == "deterministic":
        return mean, Deterministic(mean)
    p_ZlX = DiagGaussian(torch.cat([mean, torch.zeros_like(mean)], dim=1))
    return p_ZlX.rsample(), p_ZlX


@torch.no_grad()
def z_hat_of(rate, z):
    """z_hat of `forward` in evaluation mode, on the CPU."""
    return rate.eval()(z)[0].cpu()


def assert_decodes_to_z_hat(rate, z):
    decoded = rate.decompress(rate.compress(z), len(z))
    assert decoded.dtype == torch.float32 and decoded.device.type == "cpu"
    assert torch.equal(decoded, z_hat_of(rate, z))


# --- quantisation


def test_rate_distortion_optimised_symbols(fitted):
    """They lower the loss, are used in evaluation, and need no special treatment in decoding."""
    z, weight = draw_z(2000), 0.1
    reader = copy.deepcopy(fitted).eval()
    losses = []
    for rdo in (0.0, weight):
        fitted.rdo = rdo
        payload = fitted.compress(z)
        decoded = reader.decompress(payload, len(z))
        assert torch.equal(decoded, z_hat_of(fitted, z))
        errors = ((decoded - z) / fitted._cell_widths()).square().sum()
        losses.append(errors.item() + weight * 8 * len(payload))
    assert losses[1] < losses[0]


def test_the_noise_of_training_stays_within_half_a_cell(fitted):
    z = draw_z(2000)
    z_hat, _, _ = fitted.train()(z)
    z_in = fitted._to_bottleneck(z)
    noise = (fitted._to_bottleneck(z_hat) - z_in).abs()
    assert (noise <= 0.5 + 1e-6 * (1 + z_in.abs())).all()  # float32 is coarser for large values
    assert noise.mean().item() == pytest.approx(0.25, abs=0.01)  # uniform noise


# --- exact round trips


def test_decoding_gives_the_z_hat_of_evaluation(fitted):
    assert_decodes_to_z_hat(fitted, draw_z(3000, seed=1))
    z = draw_z(65)
    z[3, 1], z[7], z[20, 2] = 1e5, -3e4, -1e6  # outliers
    assert_decodes_to_z_hat(fitted, z)


def test_tables_and_widths_of_cells_are_loaded_rather_than_recomputed():
    """Another machine may compute different last digits."""
    sender, receiver, z = HFactorized(Z_DIM), HFactorized(Z_DIM), draw_z(50)
    sender.update()
    before, tables = sender.fingerprint(), sender.tables["z"]
    sender.prior.biases[0].data += 1.0
    sender._saved_widths = torch.nextafter(sender._saved_widths, torch.tensor(math.inf))
    assert sender.fingerprint() != before
    receiver.load_state_dict(sender.state_dict())
    assert receiver.fingerprint() == sender.fingerprint()
    assert digest_of(receiver.tables["z"]) == digest_of(tables)
    assert torch.equal(receiver._cell_widths(), sender._saved_widths)
    assert_decodes_to_z_hat(receiver, z)
    assert torch.equal(z_hat_of(receiver, z), z_hat_of(sender, z))


def test_evaluation_moves_no_value_by_more_than_half_a_cell(fitted):
    """This also holds after training but before `update`, with the learned widths."""
    z = draw_z(2000)
    for change in (0, 0.5):
        with torch.no_grad():
            fitted.scaling += change
        half_cell = 0.5 * (-fitted.scaling).exp()
        assert ((z_hat_of(fitted, z) - z).abs() <= half_cell * (1 + 1e-4)).all()
        assert_decodes_to_z_hat(fitted, z[:100])


def test_coding_needs_tables():
    for make in ENTROPY_CODED.values():
        rate = make(Z_DIM)
        for use in (lambda r: r.compress(draw_z(3)), lambda r: r.decompress(b"\2\0\0", 3)):
            with pytest.raises(RuntimeError, match="update"):
                use(rate)


# --- rates


def test_coded_bytes_are_the_theoretical_rate(fitted):
    z = draw_z(4000, seed=1)
    z = z[(z - 3).abs().amax(1) < 10]  # farther out, escapes cost more than the likelihoods say
    with torch.no_grad():
        _, rates, _ = fitted(z)
    n_bits = 8 * len(fitted.compress(z)) / len(z)
    assert n_bits == pytest.approx(rates.mean().item() / math.log(2), rel=0.015)


def test_the_mi_rate_is_the_kl_to_a_unit_gaussian():
    rate = MIRate(Z_DIM)
    z, p_ZlX = distributions(rate)
    _, rates, logs = rate(z, p_ZlX)
    marginal = Independent(Normal(torch.zeros_like(z), 1.0), 1)
    torch.testing.assert_close(rates, kl_divergence(p_ZlX, marginal))
    assert torch.equal(logs["I_q_ZX"], rates)
    with pytest.raises(ValueError, match="p_ZlX"):
        rate(z)


def test_the_lossless_rate_is_the_size_of_the_payload():
    rate = Lossless(Z_DIM).eval()
    z, p_ZlX = distributions(rate)
    _, rates, _ = rate(z, p_ZlX)
    expected = 8 * len(rate.compress(z)) / len(z) * math.log(2)
    torch.testing.assert_close(rates, torch.full((len(z),), expected))
    assert (rate.train()(z, p_ZlX)[1] >= rates).all()  # in training, the uncompressed size


@pytest.mark.parametrize("rate", [*ENTROPY_CODED.values(), *UNCODED])
def test_autocast_changes_nothing(rate):
    rate = rate(Z_DIM)
    z, p_ZlX = distributions(rate)
    for is_training in (True, False):
        results = []
        for enabled in (False, True):
            torch.manual_seed(0)
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                results.append(rate.train(is_training)(z, p_ZlX)[:2])
        for full, mixed in zip(*results, strict=True):
            assert mixed.dtype == torch.float32 and torch.equal(full, mixed)


# --- tables and fingerprints


def test_a_diverged_entropy_model_raises_an_error(fitted):
    for name in dict(fitted.named_parameters()):
        rate = copy.deepcopy(fitted)
        rate.get_parameter(name).data.view(-1)[-1] = math.nan
        with pytest.raises(ArithmeticError, match="training diverged"):
            rate.update()


def test_the_fingerprint_depends_on_every_parameter_and_on_nothing_else(fitted):
    fingerprint = fitted.fingerprint()
    fitted(draw_z(5))
    fitted.compress(draw_z(5))
    fitted.update()
    fitted.train()
    assert fitted.fingerprint() == fingerprint
    seen = {fingerprint}
    for parameter in fitted.parameters():
        parameter.data.view(-1)[0] += 1e-3
        seen.add(fitted.fingerprint())
    assert len(seen) == 1 + len(list(fitted.parameters()))


# --- wrong options


def test_dimensions_that_are_not_positive_integers_are_rejected():
    for z_dim in (0, 2.5, "4"):
        for rate in [*ENTROPY_CODED.values(), *UNCODED]:
            with pytest.raises(ValueError, match=f"z_dim={z_dim!r}"):
                rate(z_dim)
    with pytest.raises(ValueError, match="side_z_dim=0"):
        HHyper(Z_DIM, side_z_dim=0)
    with pytest.raises(ValueError, match="factor_dim=0"):
        HHyper(Z_DIM, factor_dim=0)


# --- custom rates


class HLaplace(ColumnCodedRate):
    """H_q[Z] under Laplace distributions with mean 0 and a learned scale for each dimension."""

    format_name = "laplace"

    def __init__(self, z_dim, **kwargs):
        super().__init__(z_dim, **kwargs)
        self.log_scale = nn.Parameter(torch.zeros(z_dim))
        self.register_buffer("centres", torch.zeros(z_dim))
        self.bound = LowerBound(1e-9)

    def _likelihoods(self, z_hat_in):
        scale = self.log_scale.exp()
        # of the cell mirrored below 0: subtracting probabilities close to 1 would be inexact
        upper, lower = (Laplace(0.0, scale).cdf(-z_hat_in.abs() + side) for side in (0.5, -0.5))
        return self.bound(upper - lower)

    def _make_tables(self):
        symbols = torch.arange(-100, 101)[:, None]
        pmf = self._likelihoods(symbols + self.centres).detach().cpu().double()  # [201, z_dim]
        first, start = np.full(self.z_dim, -100), np.full(self.z_dim, 100)
        return {"z": CDFTables.from_pmf((pmf.T * PMF_ONE).round().long().numpy(), first, start)}


def fitted_laplace(**kwargs):
    torch.manual_seed(0)
    rate = HLaplace(Z_DIM, **kwargs)
    rate.fit_transform(draw_z(4096))
    return fit_rate(rate)


@pytest.mark.parametrize("n_examples", [0, 1, 1025])
def test_a_custom_rate_needs_only_likelihoods_and_tables(n_examples):
    rate, z = HLaplace(Z_DIM), draw_z(n_examples)
    rate.update()
    assert_decodes_to_z_hat(rate, z)
    symbols = rate.quantise(z)
    assert symbols.dtype == np.int32
    assert rate.coder().encode(symbols) == rate.compress(z)
    assert torch.equal(rate.dequantise(symbols), z_hat_of(rate, z))


@pytest.mark.parametrize("transform", ["none", "klt"])
def test_a_custom_rate_is_evaluated_as_it_is_coded(transform):
    nearest, z = fitted_laplace(transform=transform), draw_z(2000)
    z = z[(z - 3).abs().amax(1) < 10]  # farther out, escapes cost more than the likelihoods say
    rate = copy.deepcopy(nearest)
    rate.rdo = 0.5
    for each in (nearest, rate):
        each.update()
        assert_decodes_to_z_hat(each, z)
        n_bits = each.coder().information(each.quantise(z)).sum()
        with torch.no_grad():
            assert each(z)[1].sum().item() / math.log(2) == pytest.approx(n_bits, rel=2e-3)
    assert len(rate.compress(z)) < 0.98 * len(nearest.compress(z))


def test_constants_that_float32_cannot_hold_move_the_centres_of_a_custom_rate():
    rate, z = HLaplace(Z_DIM), draw_z(100).double()
    rate.z_dtype = torch.float64
    z[:, 1] = 1e8 + 0.3
    rate.biasing.data[1] = -1e8
    rate.update()
    rate.recentre_constant_dims(z)
    decoded = rate.decompress(rate.compress(z), len(z))
    assert torch.equal(decoded, z_hat_of(rate, z))
    assert (decoded - z)[:, 1].abs().max() < 1e-3


# --- gradients


@pytest.mark.parametrize("make", [*ENTROPY_CODED.values(), MIRate])
def test_gradients_reach_the_encoder_only_end_to_end_and_always_the_entropy_model(make):
    torch.manual_seed(0)
    for is_end_to_end in (True, False):
        rate = make(Z_DIM, is_end_to_end=is_end_to_end)
        family = FAMILIES[rate.family]
        output = torch.randn(64, family.n_parameters * Z_DIM, requires_grad=True)
        p_ZlX = family(output)
        z_hat, rates, _ = rate(p_ZlX.rsample(), p_ZlX)
        loss = z_hat.square().sum() + rates.sum()
        if loss.requires_grad:
            loss.backward()
        assert (output.grad is not None) == is_end_to_end
        assert all(p.grad.any() for p in rate.parameters() if p.requires_grad)
