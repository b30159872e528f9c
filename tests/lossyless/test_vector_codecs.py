"""Simple vector formats: size, error, fitting, invalid input."""

import math
from functools import partial
from inspect import isabstract

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from lossyless.coding.payloads import CodingError
from lossyless.klt_vectors import KLTVectors
from lossyless.vector_codecs import (
    FittedCodec,
    Int8Vectors,
    PCAVectors,
    PublishedVectors,
    RawVectors,
    UniformVectors,
    VectorCodec,
)

DIM = 12
# for codecs that need more than `z_dim`, or are tested with several settings
OPTIONS: dict[type[VectorCodec], list[dict]] = {
    RawVectors: [{"dtype": "float16"}, {"dtype": "float32"}],
    PublishedVectors: [],  # codes like RawVectors
    UniformVectors: [{"n_bits": 4}, {"n_bits": 3}],
    PCAVectors: [{"n_components": 5}],
    KLTVectors: [{"beta": 0.1}, {"beta": 0.1, "n_clusters": 64}],
}


class Signs(VectorCodec):
    """A minimal codec, which does not handle non-finite values."""

    format_name, dtype, width = "signs", np.dtype("u1"), DIM

    def _encode(self, z):
        return (z > 0).numpy()

    def _decode(self, values):
        return torch.from_numpy(2.0 * values - 1).float()


def formats(base: type[VectorCodec]) -> list[partial]:
    """Constructors that take no arguments, of all codecs that derive from a class."""
    found = []
    for cls in base.__subclasses__():
        if not isabstract(cls):
            found += [partial(cls, DIM, **options) for options in OPTIONS.get(cls, [{}])]
        found += formats(cls)
    return found


def name_of(make: partial) -> str:
    return make().format_name


every_codec = pytest.mark.parametrize("make", formats(VectorCodec), ids=name_of)
every_fitted_codec = pytest.mark.parametrize("make", formats(FittedCodec), ids=name_of)


def vectors(n: int = 300, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(DIM, DIM, generator=generator)
    return 3 + torch.randn(n, DIM, generator=generator) @ mixing


def fitted(make: partial) -> VectorCodec:
    codec = make()
    codec.fit(vectors())
    return codec


def test_the_published_rate_is_the_size_of_a_compressed_numpy_file(tmp_path):
    codec, z = PublishedVectors(DIM), vectors(40)
    np.savez_compressed(tmp_path / "z.npz", z.numpy())
    bits = codec.rates(z) / math.log(2)
    assert bits.shape == (40,)
    assert bits.sum().item() == pytest.approx(8 * (tmp_path / "z.npz").stat().st_size)
    assert codec.rates(torch.zeros_like(z)).sum() < codec.rates(z).sum() / 5  # it is compressed


def test_the_rate_of_transform_coding_is_that_of_its_payloads():
    codec, z = fitted(partial(KLTVectors, DIM, beta=0.1)), vectors(1000)
    bits = codec.rates(z).sum().item() / math.log(2)
    assert 8 * len(codec.compress(z)) == pytest.approx(bits, rel=1e-3, abs=100)


@pytest.mark.parametrize(
    ("codec", "n_bits"),
    [
        (RawVectors(DIM, "float32"), 32 * DIM),
        (RawVectors(DIM), 16 * DIM),
        (Int8Vectors(DIM), 8 * DIM),
        (UniformVectors(DIM, 4), 4 * DIM),
        (UniformVectors(DIM, 3), 40),  # 36, padded to whole bytes
        (PCAVectors(DIM, 5), 16 * 5),
    ],
    ids=lambda value: getattr(value, "format_name", None),
)
def test_bits_of_a_vector(codec, n_bits):
    codec.fit(vectors())
    assert 8 * len(codec.compress(vectors(1))) == n_bits


def test_errors_have_the_bounds_of_the_formats():
    z = vectors()
    assert torch.equal(RawVectors(DIM, "float32")(z), z)
    assert torch.equal(RawVectors(DIM)(z), z.half().float())
    for n_bits in range(1, 9):
        codec = UniformVectors(DIM, n_bits)
        codec.fit(z)
        step = (z.max(0).values - z.min(0).values) / (2**n_bits - 1)
        assert ((codec(z) - z).abs() <= 0.5001 * step).all()
        assert (codec(z).max(0).values - z.max(0).values).abs().max() < 1e-5
        assert max(len(column.unique()) for column in codec(z).T) <= 2**n_bits


@every_fitted_codec
def test_offsets_do_not_change_payloads(make):
    """The mean is subtracted in float64: only decoded values are rounded to float32."""
    z, payloads = vectors().double(), []
    for offset in (0, 2.0**27):
        codec = make()
        codec.fit(z + offset)
        payloads.append(np.frombuffer(codec.compress(z + offset), np.uint8))
    assert (payloads[0] == payloads[1]).mean() > 0.99


def test_int8_equals_8_uniform_bits():
    int8, uniform, z = Int8Vectors(DIM), UniformVectors(DIM, 8), vectors()
    for codec in (int8, uniform):
        codec.fit(z)
    assert int8.compress(z) == uniform.compress(z) and int8.fingerprint() == uniform.fingerprint()


def test_values_beyond_the_extremes_are_clipped_and_constant_dimensions_kept():
    codec = Int8Vectors(2)
    codec.fit(torch.tensor([[0.0, 5], [1, 5]]))
    found = codec(torch.tensor([[-3.0, 7], [9, 5], [0.5, 5]]))
    torch.testing.assert_close(found[:2], torch.tensor([[0.0, 5], [1, 5]]))
    assert abs(found[2, 0] - 0.5) <= 0.501 / 255 and found[2, 1] == 5


@pytest.mark.parametrize("n_components", [1, 4, DIM])
def test_components_equal_those_of_scikit_learn(n_components):
    z = vectors()
    codec = PCAVectors(DIM, n_components)
    codec.fit(z)
    reference = PCA(n_components).fit(z.double().numpy())
    expected = reference.inverse_transform(reference.transform(z.double().numpy()))
    np.testing.assert_allclose(codec(z).numpy(), expected, atol=0.02)


@every_fitted_codec
def test_codecs_must_be_fitted_to_finite_vectors(make):
    codec = make()
    for use in (lambda: codec.compress(vectors()), lambda: codec.decompress(b"", 0)):
        with pytest.raises(RuntimeError, match="`fit`"):
            use()
    with pytest.raises(ValueError, match=r"\[N, 12\].*\[3, 2\]"):
        codec.fit(torch.zeros(3, 2))
    for value in (math.nan, 1e39):
        with pytest.raises(ValueError, match="not finite"):
            codec.fit(torch.full((3, DIM), value, dtype=torch.float64))
    assert not codec.is_fitted


@every_codec
def test_invalid_vectors_are_errors(make):
    codec = fitted(make)
    with pytest.raises(CodingError, match=r"\[N, 12\].*\[2, 3\]"):
        codec.compress(torch.zeros(2, 3))
    for value in (math.inf, math.nan, 1e39):
        z = vectors(3).double()
        z[1, 4] = value
        with pytest.raises(CodingError, match="not finite"):
            codec.compress(z)


@every_codec
def test_vectors_are_coded_on_the_cpu_although_the_model_is_moved_to_a_device(make):
    codec, z = fitted(make), vectors()
    payload = codec.compress(z)
    torch.nn.Sequential(codec).to("meta")  # stands in for a GPU
    assert codec.compress(z) == payload and codec(z).device == z.device


def test_invalid_options_and_values_are_errors():
    for make, message in (
        (lambda: RawVectors(DIM, "float8"), "float8.*float16, float32"),
        (lambda: UniformVectors(DIM, 0), "n_bits=0"),
        (lambda: UniformVectors(DIM, 9), "n_bits=9.*RawVectors"),
        (lambda: PCAVectors(DIM, DIM + 1), "n_components=13"),
        (lambda: PCAVectors(DIM, 0), "n_components=0"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(CodingError, match="float16.*dtype=float32"):
        RawVectors(DIM).compress(torch.full((1, DIM), 7e4))
