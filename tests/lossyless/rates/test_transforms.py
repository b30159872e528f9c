"""Orthogonal transforms: the same values for sender and receiver, and fewer bits."""

import math
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from helpers.toy import Batches, fit_rate

from lossyless.architectures import Identity, Linear
from lossyless.base import Batch
from lossyless.compressors import LearnableCompressor
from lossyless.distortions import LossyZ
from lossyless.distributions import CondDist
from lossyless.klt_vectors import KLTVectors
from lossyless.optim import PartOptimizer
from lossyless.rates import HFactorized
from lossyless.rates.transforms import KLT, MATRIX_BITS, rotate_with_integers

D = 12


def correlated(n: int, seed: int = 0, dim: int = D) -> torch.Tensor:
    """Features [n, dim] with a few strong components, in a random basis."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, generator=torch.Generator().manual_seed(9))
    strengths = 4 * 0.6 ** torch.arange(dim)
    return 5 + (torch.randn(n, dim, generator=generator) * strengths) @ mixing


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    rate = HFactorized(D, transform="klt")
    rate.fit_transform(correlated(2000))
    return fit_rate(rate, 100, z=correlated(2000), beta=0.1, lr=1e-2)


@torch.no_grad()
def z_hat_of(rate, z):
    return rate.eval()(z)[0].cpu()


# --- integer rotation


def random_rotation(dim):
    transform = KLT(dim)
    transform.fit(torch.randn(2 * dim, dim))
    return transform.matrix


@pytest.mark.parametrize(
    "dim, size",
    [(1, 1.0), (2, 1e5), (33, 1e-30), (33, 1e30), (600, 1.0)],
)
def test_no_order_of_summation_changes_a_bit(dim, size):
    torch.manual_seed(0)
    z = size * torch.randn(20, dim).double()
    matrix = torch.nn.functional.normalize(torch.randn(dim, dim), dim=0)
    matrix = torch.round(matrix * 2**MATRIX_BITS) / 2**MATRIX_BITS
    expected = rotate_with_integers(z, matrix)
    order = torch.randperm(dim)
    assert torch.equal(rotate_with_integers(z[:, order], matrix[order]), expected)
    one_by_one = torch.cat([rotate_with_integers(row[None], matrix) for row in z])
    assert torch.equal(one_by_one, expected)
    # the same with Python's integers, which are unbounded
    scale = 2.0 ** (52 - MATRIX_BITS - math.ceil(math.log2(dim) / 2))
    row = z[0] / 2.0 ** (exponent := math.frexp(z[0].abs().max().item())[1])
    integers = [round(v * scale) for v in row.tolist()]
    columns = (matrix.double() * 2**MATRIX_BITS).T[:5].tolist()
    sums = [sum(v * int(m) for v, m in zip(integers, c, strict=True)) for c in columns]
    assert max(map(abs, sums)) < 2**53
    found = expected[0, :5] * scale * 2.0 ** (MATRIX_BITS - exponent)
    assert found.tolist() == sums


@pytest.mark.parametrize("dim", [2, 33, 256])
def test_rotations_are_as_precise_as_float32(dim):
    torch.manual_seed(0)
    matrix, z = random_rotation(dim), 7 + torch.randn(50, dim)
    errors = rotate_with_integers(z, matrix) - z.double() @ matrix.double()
    lengths = z.double().norm(dim=1, keepdim=True)
    assert (errors.abs() <= 2.0**-24 * lengths * math.sqrt(dim)).all()
    there_and_back = rotate_with_integers(rotate_with_integers(z, matrix), matrix.T)
    assert ((there_and_back - z).norm(dim=1, keepdim=True) <= 2.0**-18 * lengths).all()


def test_zeros_stay_zeros_and_nan_stays_nan():
    z = torch.zeros(3, 4)
    z[1, 2] = math.nan
    rotated = rotate_with_integers(z, random_rotation(4))
    assert rotated[1].isnan().all() and (rotated[[0, 2]] == 0).all()


# --- the basis


def test_the_mean_is_left_out_of_the_rotation():
    z, transform = 1e7 + correlated(500), KLT(D)
    transform.fit(z)
    rotated = transform.rotate_exactly(z)
    expected = (z.double() - transform.mean.double()) @ transform.matrix.double()
    torch.testing.assert_close(rotated, expected, atol=1e-4, rtol=0)
    assert torch.equal(transform.rotate_back_exactly(rotated).float(), z)
    torch.testing.assert_close(transform.rotate(z).double(), expected, atol=1e-3, rtol=0)
    assert torch.equal(transform.rotate_back(transform.rotate(z)), z)


def test_the_basis_is_orthogonal_and_decorrelates():
    z, transform = correlated(3000).double(), KLT(D)
    transform.fit(z)
    basis = transform.matrix.double()
    torch.testing.assert_close(basis.T @ basis, torch.eye(D).double(), atol=1e-5, rtol=0)
    covariance = torch.cov((z @ basis).T, correction=0)
    variances = covariance.diagonal()
    assert (covariance - variances.diag()).abs().max() < 1e-4 * variances[0]
    assert (variances.diff() <= 0).all()
    transform.fit(-z)  # the signs do not depend on the solver
    assert torch.equal(transform.matrix.double(), basis)


def test_few_rows_determine_few_components():
    z, other, transform = (
        correlated(40, dim=60),
        correlated(2000, 1, dim=60),
        KLT(60),
    )
    transform.fit(z)
    basis = transform.matrix
    torch.testing.assert_close(basis.T @ basis, torch.eye(60), atol=1e-5, rtol=0)
    _, vectors = torch.linalg.eigh(torch.cov(z.T.double()))
    overlaps = (vectors.flip(1)[:, :10].float() * basis[:, :10]).sum(0).abs()
    torch.testing.assert_close(overlaps, torch.ones(10), atol=1e-4, rtol=0)
    # the remaining components vary about as much on rows outside the fit
    seen, unseen = (
        ((rows - z.mean(0)) @ basis)[:, 10:].square().sum() / len(rows) for rows in (z, other)
    )
    assert 0.5 < seen / unseen < 2


def test_constant_features_have_a_basis():
    for z in (torch.ones(5, D), torch.ones(1, D), torch.zeros(3, D)):
        rate = HFactorized(D, transform="klt")
        rate.fit_transform(z)
        rate.update()
        torch.testing.assert_close(z_hat_of(rate, z), z, atol=0.5, rtol=0)


# --- coding


def test_errors_are_those_of_uniform_cells(trained):
    z = correlated(2000, seed=1)
    width = (-trained.scaling).exp().item()
    mean_square = (z_hat_of(trained, z) - z).square().mean().item()
    assert mean_square <= width**2 / 12 * 1.05
    assert (z_hat_of(trained, z) - z).norm(dim=1).max() <= width / 2 * math.sqrt(D) * 1.01


# --- rates


def bits_and_error(rate, z):
    with torch.no_grad():
        z_hat, rates, _ = rate.eval()(z)
    return rates.mean().item() / math.log(2), (z_hat - z).square().sum(1).mean().item()


def test_correlated_features_take_far_fewer_bits(trained):
    z = correlated(2000)
    plain = HFactorized(D)
    plain.start_from(z, cell_width=(-trained.scaling).exp().item())
    plain.scaling.requires_grad_(False)
    n_bits, error = bits_and_error(fit_rate(plain, 100, z=z, beta=0.1, lr=1e-2), z)
    n_bits_rotated, error_rotated = bits_and_error(trained, z)
    covariance = torch.cov(z.T.double())
    gain = 0.5 * (covariance.diagonal().log2().sum() - torch.logdet(covariance) / math.log(2))
    assert error_rotated <= 1.02 * error
    assert 0.5 * gain < n_bits - n_bits_rotated <= 1.05 * gain


def test_densities_start_as_wide_as_their_dimensions():
    torch.manual_seed(0)
    z = correlated(2000)
    rate = HFactorized(D, transform="klt")
    rate.fit_transform(z)
    rate.start_from(z, cell_width=0.5)
    rate.update()
    z_in = rate.eval()._to_bottleneck(z).double()
    entropy = sum(
        -(p * p.log2()).sum()
        for column in z_in.round().T
        for p in [column.unique(return_counts=True)[1] / len(z)]
    )
    assert bits_and_error(rate, z)[0] == pytest.approx(entropy.item(), rel=0.25)


# --- errors


def test_a_transform_must_be_fitted_first():
    rate, z = HFactorized(D, transform="klt"), correlated(10)
    assert rate.is_transform_missing
    for use in (lambda: rate.train()(z), lambda: rate.eval()(z), rate.update):
        with pytest.raises(RuntimeError, match="fit_transform"):
            use()
    with pytest.raises(RuntimeError):
        rate.compress(z)


def test_invalid_options_features_and_weights_raise_errors(trained):
    with pytest.raises(ValueError, match="'no such'.*none, klt"):
        HFactorized(D, transform="no such")
    rate = HFactorized(D, transform="klt")
    with pytest.raises(ValueError, match=r"\[N, 12\].*\[5, 3\]"):
        rate.fit_transform(torch.ones(5, 3))
    with pytest.raises(ValueError, match="NaN or infinite"):
        rate.fit_transform(torch.full((5, D), math.inf))
    with pytest.raises(ValueError, match="'klt'.*'none'"):
        HFactorized(D).load_state_dict(trained.state_dict())


def test_every_klt_has_a_limited_number_of_dimensions(monkeypatch):
    monkeypatch.setattr("lossyless.rates.transforms.MAX_DIM", D - 1)
    with pytest.raises(ValueError, match=f"{D}.*{D - 1}"):
        HFactorized(D, transform="klt")
    with pytest.raises(ValueError, match=f"{D}.*{D - 1}"):
        KLTVectors(D).fit(correlated(9))


# --- in training


def compressor_of(arch):
    torch.manual_seed(0)
    adam = PartOptimizer(partial(torch.optim.Adam, lr=1e-2))
    rate = HFactorized(D, transform="klt")
    return LearnableCompressor(CondDist(arch, (D,), D), rate, LossyZ(2), adam, beta=0.1)


def batches():
    z = correlated(256)
    return Batches([Batch(rows, torch.zeros(len(rows))) for rows in z.split(64)])


def test_a_compressor_fits_the_transform_once(make_trainer, tmp_path):
    compressor = compressor_of(Identity)
    checkpoint = pl.callbacks.ModelCheckpoint(dirpath=tmp_path, save_on_train_epoch_end=True)
    trainer = make_trainer(1, callbacks=[checkpoint], enable_checkpointing=True)
    trainer.fit(compressor, batches(), batches())
    expected = KLT(D)
    expected.fit(correlated(256))
    assert torch.equal(compressor.rate.transform.matrix, expected.matrix)

    resumed, other = compressor_of(Identity), Batches([Batch(torch.randn(64, D), torch.zeros(64))])
    make_trainer(2).fit(resumed, other, ckpt_path=checkpoint.best_model_path)
    assert torch.equal(resumed.rate.transform.matrix, expected.matrix)


def test_a_transform_needs_a_frozen_encoder(make_trainer):
    with pytest.raises(ValueError, match="freeze it"):
        make_trainer(1).fit(compressor_of(Linear), batches())
    frozen = compressor_of(Linear)
    frozen.p_ZlX.requires_grad_(False)
    make_trainer(1).fit(frozen, batches())
    assert not frozen.rate.is_transform_missing
