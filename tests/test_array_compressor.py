"""The estimator of feature matrices: exact, reproducible, and at home in scikit-learn."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import lossyless
from lossyless import ArrayCompressor
from lossyless.payloads import CodingError
from lossyless.weights import WeightsError

N, D = 600, 10
QUICK = {"n_epochs": 1, "batch_size": 64}


def features(n=N, seed=0, dtype=np.float32):
    """Correlated features with means that are not 0."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).normal(size=(D, D))
    strengths = 4 * 0.6 ** np.arange(D)
    return (5 + (rng.normal(size=(n, D)) * strengths) @ mixing).astype(dtype)


@pytest.fixture(scope="module", autouse=True)
def few_steps():
    """Small matrices need less training than real ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lossyless.array_compressor.MIN_STEPS", 30)
        yield


@pytest.fixture(scope="module", params=["klt", "none"])
def fitted(request):
    return ArrayCompressor(rotation=request.param, **QUICK).fit(features())


@pytest.fixture(scope="module")
def klt():
    return ArrayCompressor(**QUICK).fit(features())


# --- coding


@pytest.mark.parametrize("n", [1, 5, 600])
def test_transform_is_what_is_decoded(fitted, n):
    Z = features(n, seed=1)
    decoded = fitted.decompress(fitted.compress(Z))
    assert decoded.dtype == np.float32 and decoded.shape == (n, D)
    np.testing.assert_array_equal(decoded, fitted.transform(Z))


def test_many_rows_are_coded_in_chunks(fitted, monkeypatch):
    Z, whole = features(), fitted.transform(features())
    monkeypatch.setattr("lossyless.array_compressor.CHUNK_SIZE", 100)
    np.testing.assert_array_equal(fitted.decompress(fitted.compress(Z)), whole)
    np.testing.assert_array_equal(fitted.decompress(fitted.compress(Z[:250])), whole[:250])


def test_errors_stay_within_the_cells(fitted):
    Z = features(seed=1)
    width = math.sqrt(6 * fitted.beta * features().var(0).mean())
    errors = fitted.transform(Z) - Z
    assert np.square(errors).mean() <= 1.1 * width**2 / 12
    assert np.linalg.norm(errors, axis=1).max() <= 1.01 * width / 2 * math.sqrt(D)


def test_correlated_columns_take_fewer_bits_in_their_principal_components():
    Z = features()
    n_bits = {r: ArrayCompressor(rotation=r, **QUICK).fit(Z).n_bits(Z) for r in ("klt", "none")}
    assert n_bits["klt"] < 0.6 * n_bits["none"]


def test_beta_trades_bits_for_errors():
    Z, n_bits, errors = features(), [], []
    for beta in (0.01, 0.1, 1.0):
        compressor = ArrayCompressor(beta, **QUICK).fit(Z)
        n_bits.append(compressor.n_bits(Z))
        errors.append(np.square(compressor.transform(Z) - Z).mean())
    assert n_bits == sorted(n_bits, reverse=True) and errors == sorted(errors)


def test_bits_and_score_are_what_they_say(fitted):
    Z = features(seed=1)
    n_bits, score = fitted.n_bits(Z), fitted.score(Z)
    assert n_bits == 8 * len(fitted.compress(Z)) / N
    error = np.square(fitted.transform(Z) - Z).sum(1).mean() / features().var(0).mean()
    head = 8 * 40 / N
    assert -score == pytest.approx(error + fitted.beta * math.log(2) * (n_bits - head), rel=0.02)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_the_unit_of_the_features_does_not_matter(unit):
    for rotation in ("klt", "none"):
        plain, scaled = (
            ArrayCompressor(rotation=rotation, **QUICK).fit(factor * features(dtype=np.float64))
            for factor in (1, unit)
        )
        Z = features(seed=1)
        np.testing.assert_allclose(
            scaled.transform((unit * Z).astype(np.float32)) / unit, plain.transform(Z), atol=2.0
        )
        assert scaled.n_bits(unit * Z) == pytest.approx(plain.n_bits(Z), rel=0.02)


# --- odd matrices


@pytest.mark.parametrize(
    "Z",
    [
        np.ones((1, 3)),
        np.ones((20, 3)),
        np.zeros((20, 1)),
        np.arange(30.0)[:, None],
        np.c_[np.ones(50), np.arange(50.0)],
        np.random.default_rng(0).normal(size=(5, 40)),
        np.arange(40).reshape(20, 2),
    ],
    ids=["one row", "constant", "zeros", "one column", "constant column", "wide", "integers"],
)
@pytest.mark.parametrize("rotation", ["klt", "none"])
def test_odd_matrices_are_compressed(Z, rotation):
    compressor = ArrayCompressor(rotation=rotation, **QUICK).fit(Z)
    decoded = compressor.decompress(compressor.compress(Z))
    scale = math.sqrt(Z.var(0).mean()) or 1.0
    bound = math.sqrt(6 * 0.1) / 2 * scale * math.sqrt(Z.shape[1]) * 1.01
    assert np.linalg.norm(decoded - Z, axis=1).max() <= bound


@pytest.mark.parametrize(
    "Z, message",
    [
        (np.full((5, 2), np.nan), "NaN"),
        (np.full((5, 2), np.inf), "infinity"),
        (np.ones(5), "Expected 2D array"),
        (np.ones((0, 3)), "0 sample"),
        ([["a", "b"]], "could not convert|dtype"),
    ],
)
def test_unusable_matrices_are_named(Z, message, klt):
    with pytest.raises(ValueError, match=message):
        ArrayCompressor(**QUICK).fit(Z)
    with pytest.raises(ValueError, match=message):
        klt.compress(Z)


def test_other_columns_than_in_training_are_refused(klt):
    with pytest.raises(ValueError, match="3 features, but ArrayCompressor is expecting 10"):
        klt.transform(np.ones((5, 3)))


def test_values_too_far_out_are_refused(klt):
    with pytest.raises(CodingError, match="cannot code"):
        klt.compress(np.full((2, D), 1e30))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"beta": 0}, "beta=0: expected a positive number"),
        ({"beta": math.nan}, "beta=nan"),
        ({"lr": -1}, "lr=-1"),
        ({"n_epochs": "many"}, "n_epochs='many'"),
        ({"rotation": "dct"}, "rotation='dct': expected one of"),
    ],
)
def test_unusable_parameters_are_named_by_fit(options, message):
    with pytest.raises(ValueError, match=message):
        ArrayCompressor(**options).fit(features())


# --- payloads


def test_damaged_and_foreign_payloads_are_refused(klt):
    payload = klt.compress(features(50))
    rng = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(payload)
        damaged[rng.integers(len(payload))] ^= 1 << rng.integers(8)
        with pytest.raises(CodingError):
            klt.decompress(bytes(damaged))
    for length in rng.integers(0, len(payload), 50):
        with pytest.raises(CodingError):
            klt.decompress(payload[:length])
    for foreign in (b"", payload + b"\0", b"something else"):
        with pytest.raises(CodingError):
            klt.decompress(foreign)


def test_payloads_of_another_compressor_are_refused(klt):
    other = ArrayCompressor(beta=0.2, **QUICK).fit(features())
    with pytest.raises(CodingError, match="another compressor"):
        other.decompress(klt.compress(features(5)))


# --- files


def test_a_loaded_compressor_codes_alike(fitted, tmp_path):
    path, Z = tmp_path / "compressor.bin", features(20, seed=1)
    fitted.save(path)
    loaded = ArrayCompressor.load(path)
    assert loaded.compress(Z) == fitted.compress(Z)
    assert loaded.score(Z) == fitted.score(Z)
    assert loaded.get_params() == fitted.get_params()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_damaged_and_foreign_files_are_refused(klt, tmp_path):
    path = tmp_path / "compressor.bin"
    klt.save(path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [content[:-1], content[:20], b"", b"foreign"]
    for _ in range(50):
        flipped = bytearray(content)
        flipped[rng.integers(len(content))] ^= 1 << rng.integers(8)
        damaged.append(bytes(flipped))
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=str(path)):
            ArrayCompressor.load(path)


def test_a_failed_save_leaves_the_old_file(klt, tmp_path, monkeypatch):
    path = tmp_path / "compressor.bin"
    path.write_bytes(b"old")

    def full(*args):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="disk full"):
        klt.save(path)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


DECODE = """
import sys
import lossyless, lossyless.rates
assert "sklearn" not in sys.modules
from lossyless import ArrayCompressor
compressor = ArrayCompressor.load(sys.argv[1])
sys.stdout.buffer.write(compressor.decompress(sys.stdin.buffer.read()).tobytes())
"""


def test_another_process_decodes_the_same(klt, tmp_path):
    """... and the library alone does not import scikit-learn."""
    klt.save(tmp_path / "compressor.bin")
    Z = features(50, seed=1)
    command = [sys.executable, "-c", DECODE, str(tmp_path / "compressor.bin")]
    done = subprocess.run(
        command,
        input=klt.compress(Z),
        stdout=subprocess.PIPE,
        check=True,
        cwd=lossyless.__path__[0] + "/..",
    )
    assert done.stdout == klt.transform(Z).tobytes()


# --- scikit-learn


def test_training_is_a_function_of_data_and_random_state():
    Z, state = features(), torch.get_rng_state()
    payloads = [ArrayCompressor(random_state=s, **QUICK).fit(Z).compress(Z) for s in (0, 0, 1)]
    assert payloads[0] == payloads[1] != payloads[2]
    assert torch.equal(torch.get_rng_state(), state)


def test_it_is_an_estimator(klt):
    with pytest.raises(NotFittedError):
        clone(klt).transform(features(5))
    assert clone(klt).get_params() == klt.get_params()
    assert clone(klt).set_params(beta=0.3).beta == 0.3
    assert klt.n_features_in_ == D
    np.testing.assert_array_equal(
        clone(klt).fit_transform(features()), clone(klt).fit(features()).transform(features())
    )


def test_it_works_in_pipelines_and_searches():
    Z = features(200)
    y = Z[:, 0] > Z[:, 0].mean()
    model = make_pipeline(ArrayCompressor(beta=0.01, **QUICK), LogisticRegression())
    assert model.fit(Z, y).score(Z, y) > 0.9
    search = GridSearchCV(ArrayCompressor(batch_size=64), {"n_epochs": [1, 2]}, cv=2)
    assert np.isfinite(search.fit(Z).best_score_)


def test_an_unknown_name_is_an_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        lossyless.nothing  # noqa: B018


def test_its_rate_is_a_codec(klt):
    Z = torch.from_numpy(features(20))
    symbols = klt.codec.quantise(Z)
    np.testing.assert_array_equal(klt.codec.dequantise(symbols).numpy(), klt.transform(Z.numpy()))
