"""The compressor for feature matrices: exact, reproducible, and a scikit-learn estimator."""

import copy
import math
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.damage import flip_bit
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

import lossyless
from lossyless import ArrayCompressor
from lossyless.coding.payloads import CodingError
from lossyless.files import CompressedFile, ContainerError, FeatureFile, write_features
from lossyless.paper_compressor import PaperCompressor
from lossyless.weights import WeightsError

N, D = 600, 10


def features(n=N, seed=0, dtype=np.float32):
    """Correlated features with nonzero means."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).normal(size=(D, D))
    strengths = 4 * 0.6 ** np.arange(D)
    return (5 + (rng.normal(size=(n, D)) * strengths) @ mixing).astype(dtype)


@pytest.fixture(scope="module", autouse=True)
def few_steps():
    """Less training is enough for small matrices."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lossyless.paper_compressor.MIN_STEPS", 30)
        yield


MAKE = {
    "default": ArrayCompressor,
    "rounding": lambda: ArrayCompressor(weighting=0.0, rdo=False),
    "target": lambda: ArrayCompressor(rate_target=12),
    "paper": ArrayCompressor.paper,
}


@pytest.fixture(scope="module", params=MAKE)
def fitted(request):
    return MAKE[request.param]().fit(features())


@pytest.fixture(scope="module")
def klt():
    return ArrayCompressor().fit(features())


# --- coding


@pytest.mark.parametrize("n", [1, 5, 600])
def test_transform_equals_decoding(fitted, n):
    Z = features(n, seed=1)
    decoded = fitted.decompress(fitted.compress(Z))
    assert decoded.dtype == np.float32 and decoded.shape == (n, D)
    np.testing.assert_array_equal(decoded, fitted.transform(Z))


def rounding(beta: float = 0.1) -> ArrayCompressor:
    """A compressor whose errors have simple bounds."""
    return ArrayCompressor(beta, weighting=0.0, rdo=False)


def test_errors_are_within_the_cells():
    """Symbols are decoded to the mean of their cell, so errors are smaller than with midpoints."""
    Z, fitted = features(seed=1), rounding().fit(features())
    width = math.sqrt(6 * fitted.beta * features().var(0).mean())
    errors = fitted.transform(Z) - Z
    assert np.square(errors).mean() <= 1.1 * width**2 / 12
    assert np.linalg.norm(errors, axis=1).max() <= 1.01 * width * math.sqrt(D)


def test_the_papers_settings_learn_a_cell_width_for_each_column():
    """A width of 4 beta minimises error + beta * rate = width / 4 - beta * log(width) + constant.

    Columns with less variation are not coded.
    """
    rng = np.random.default_rng(0)
    deviations = np.array([1e-3, 0.3, 0.45, 0.45, 1, 5])
    Z = 3 + rng.normal(size=(2000, 6)) * deviations
    compressor = ArrayCompressor.paper(n_epochs=60).fit(Z)
    widths = compressor.rate_.scaling.neg().exp().numpy()
    np.testing.assert_allclose(widths[1:], 4 * compressor.beta, rtol=0.1)
    n_bits = np.log2(deviations[1:] * math.sqrt(2 * math.pi * math.e) / (4 * compressor.beta))
    assert compressor.n_bits(Z) == pytest.approx(n_bits.sum(), rel=0.05)
    assert np.abs(compressor.transform(Z) - Z)[:, 0].mean() < 1e-3


def test_the_loss_is_lower_with_rdo():
    Z = features(seed=1)
    for beta in (0.1, 1.0):
        losses = [-ArrayCompressor(beta, rdo=rdo).fit(features()).score(Z) for rdo in (True, False)]
        assert losses[0] < losses[1]


def test_weighting_favours_directions_of_large_variance():
    """At high rates, squared errors are proportional to variance^-weighting."""
    scales = np.array([8.0, 4.0, 2.0])
    Z = np.random.default_rng(0).normal(size=(4000, 3)) * scales
    for weighting in (0.0, 0.5, 1.0):
        compressor = ArrayCompressor(rate_target=12, weighting=weighting, rdo=False).fit(Z)
        errors = np.square(compressor.transform(Z) - Z).mean(0)
        expected = (scales / scales[0]) ** (-2 * weighting)
        np.testing.assert_allclose(errors / errors[0], expected, rtol=0.1)


@pytest.mark.parametrize("n_bits", [3, 30])
@pytest.mark.parametrize("weighting", [0.0, 1.0])
def test_a_rate_target_is_the_rate_of_new_rows(n_bits, weighting):
    compressor = ArrayCompressor(rate_target=n_bits, weighting=weighting).fit(features())
    assert float(compressor.codec.rate) == pytest.approx(n_bits, rel=0.03)
    payload = compressor.compress(features(5000, seed=1))
    n_bytes = sum(chunk.length for chunk in CompressedFile(payload).heads)
    assert 8 * n_bytes / 5000 == pytest.approx(n_bits, rel=0.1)
    again = ArrayCompressor(compressor.beta_, weighting=weighting).fit(features())
    np.testing.assert_array_equal(again.transform(features()), compressor.transform(features()))


def test_the_rate_counts_symbols_that_no_table_lists():
    for beta in (1e-6, 1e-8, 1e-10):
        compressor = ArrayCompressor(beta).fit(features())
        n_bits = compressor.n_bits(features(5000, seed=1))
        assert float(compressor.codec.rate) == pytest.approx(n_bits, rel=0.02)


def test_a_rate_target_that_cannot_be_reached_is_an_error():
    wide = np.random.default_rng(0).normal(size=(10, 64))  # all-zero symbols already take more bits
    for n_bits, Z in ((20, np.ones((9, 3))), (50, features()[:, :3]), (0.01, wide)):
        with pytest.raises(ValueError, match=f"rate_target={n_bits}:"):
            ArrayCompressor(rate_target=n_bits).fit(Z)


@pytest.mark.parametrize("weighting", [0.0, 1.0])
def test_few_rows_are_not_overfitted(weighting):
    """The leave-one-out rate predicts the bits of new rows, even with more columns than rows."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(20, 200)) / np.arange(1, 21)[:, None]
    train, test = (
        rng.normal(size=(n, 20)) @ mixing + 0.1 * rng.normal(size=(n, 200)) for n in (80, 400)
    )
    compressor = ArrayCompressor(0.5, weighting=weighting).fit(train)
    [chunk] = CompressedFile(compressor.compress(test)).heads
    assert 8 * chunk.length / 400 < 1.25 * float(compressor.codec.rate)


def clustered(n: int, seed: int) -> np.ndarray:
    """Rows [n, 40] around 30 centres."""
    centres, rng = np.random.default_rng(0).normal(size=(30, 40)), np.random.default_rng(seed)
    return centres[rng.integers(30, size=n)] + 0.3 * rng.normal(size=(n, 40))


def test_clusters_lower_the_loss_of_new_rows():
    train, test = clustered(400, 1), clustered(1000, 2)
    for beta in (0.3, 3.0):
        losses = [-ArrayCompressor(beta, n_clusters=n).fit(train).score(test) for n in (0, 8, 1024)]
        assert losses[2] < losses[1] < losses[0]
    compressor = ArrayCompressor(rate_target=40).fit(train)
    [chunk] = CompressedFile(compressor.compress(test)).heads
    assert 8 * chunk.length / 1000 == pytest.approx(40, rel=0.1)


def test_rows_without_clusters_are_coded_without_them():
    Z = np.random.default_rng(0).normal(size=(400, 40)) / np.arange(1, 41)
    payloads = [ArrayCompressor(1.0, n_clusters=n).fit(Z).compress(Z) for n in (0, 1024)]
    assert payloads[0] == payloads[1]


def test_clusters_do_not_depend_on_threads_and_batches(tmp_path):
    Z, n_threads = clustered(400, 1), torch.get_num_threads()
    compressors = []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            compressors.append(ArrayCompressor(1.0).fit(Z))
    finally:
        torch.set_num_threads(n_threads)
    compressors[0].save(tmp_path / "model.bin")
    compressors.append(ArrayCompressor.load(tmp_path / "model.bin"))
    payload, decoded = compressors[0].compress(Z), compressors[0].transform(Z)
    assert all(c.compress(Z) == payload for c in compressors)
    rows = [compressors[2].transform(Z[i : i + 1]) for i in range(20)]
    np.testing.assert_array_equal(np.concatenate(rows), decoded[:20])


def test_bits_and_score_in_closed_form(fitted):
    Z = features(seed=1)
    n_bits, score = fitted.n_bits(Z), fitted.score(Z)
    assert n_bits == 8 * len(fitted.compress(Z)) / N
    errors = fitted.transform(Z) - Z
    if isinstance(fitted, PaperCompressor):
        error, beta = np.abs(errors).sum(1).mean(), fitted.beta
    else:
        covariance, v = np.cov(features().T, bias=True), features().var(0).mean()
        variances, basis = np.linalg.eigh(covariance)
        weights = (variances + 0.01 * v) ** fitted.weighting
        weights /= (weights * variances).sum() / variances.sum()
        error, beta = (np.square(errors @ basis) * weights).sum(1).mean() / v, fitted.beta_
    assert -score == pytest.approx(error + beta * math.log(2) * n_bits, rel=1e-3)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_the_unit_of_the_features_does_not_matter(unit):
    Z, exact = features(seed=1), features(dtype=np.float64)
    plain, scaled = (ArrayCompressor().fit(u * exact) for u in (1, unit))
    np.testing.assert_allclose(
        scaled.transform((unit * Z).astype(np.float32)) / unit, plain.transform(Z), atol=2.0
    )
    assert scaled.n_bits(unit * Z) == pytest.approx(plain.n_bits(Z), rel=0.02)


# --- unusual matrices


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
        np.arange(40.0).reshape(20, 2)[::-2, ::-1],
    ],
    ids=["one row", "constant", "zeros", "one column", "constant column", "wide", "integers"]
    + ["negative strides"],
)
def test_unusual_matrices_are_compressed(Z):
    compressor = rounding().fit(Z)
    decoded = compressor.decompress(compressor.compress(Z))
    scale = math.sqrt(Z.var(0).mean()) or 1.0
    bound = math.sqrt(6 * 0.1) / 2 * scale * math.sqrt(Z.shape[1]) * 1.01
    assert np.linalg.norm(decoded - Z, axis=1).max() <= bound


@pytest.mark.parametrize("offset", [1e8, -1.7e9])
def test_a_common_offset_costs_neither_bits_nor_precision(fitted, offset, tmp_path):
    """The mean is subtracted in float64, and decoded rows are also float64."""
    Z, results = features(dtype=np.float64), []
    for rows in (Z, Z + offset):
        compressor = clone(fitted).fit(rows)
        decoded = compressor.transform(rows)
        assert decoded.dtype == np.float64
        results.append((np.square(decoded - rows).mean(), compressor.n_bits(rows)))
    assert results[1] == pytest.approx(results[0], rel=1e-3)
    compressor.save(tmp_path / "compressor.bin")
    write_features([rows], tmp_path / "Z.bin", compressor.codec)
    for receiver in (compressor, ArrayCompressor.load(tmp_path / "compressor.bin")):
        with FeatureFile(tmp_path / "Z.bin", receiver.codec) as file:
            np.testing.assert_array_equal(file.read().numpy(), decoded)
            np.testing.assert_array_equal(file[3].numpy(), decoded[3])
        np.testing.assert_array_equal(receiver.decompress(compressor.compress(rows)), decoded)


def test_times_among_ordinary_columns():
    """Unix times as integers, all from the last minute or all equal."""
    seconds, results = np.random.default_rng(0).integers(0, 60, N), []
    for start in (0, 1_700_000_000):
        times = np.c_[start + seconds, np.full(N, start)]
        Z = np.c_[features(), times]
        frame = pd.DataFrame(features()).assign(seconds=times[:, 0], start=start)
        for rows in (Z, frame.rename(columns=str)):
            compressor = ArrayCompressor().fit(rows)
            errors = np.abs(compressor.transform(rows) - Z)
            results.append([compressor.n_bits(rows), *errors.mean(0)])
        compressor.fit(times)
        assert np.abs(compressor.transform(times) - times)[:, 1].max() < 1e-2
    np.testing.assert_allclose(results, results[:1] * len(results), atol=0.02)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "dtype, expected", [("f2", "f4"), ("f4", "f4"), ("f8", "f8"), ("i2", "f4"), ("i8", "f8")]
)
def test_types_are_as_precise_as_the_rows_it_was_fitted_to(dtype, expected, tmp_path):
    Z = features().astype(dtype)
    Z.flags.writeable = False
    compressor = ArrayCompressor().fit(Z)
    compressor.save(tmp_path / "compressor.bin")
    compressor = ArrayCompressor.load(tmp_path / "compressor.bin")
    for rows in (Z, Z.astype("f4"), Z.astype("f8")):
        decoded = compressor.decompress(compressor.compress(rows))
        assert decoded.dtype == compressor.transform(rows).dtype == np.dtype(expected)
        np.testing.assert_array_equal(decoded, compressor.transform(rows))


@pytest.mark.parametrize("value, n", [(0.0, 999), (0.1, 1), (1e20, 999), (1e-20, 1)])
def test_constant_columns_are_kept(value, n):
    Z = np.full((n, 16), value)
    Z[:, 1:4] *= 2
    compressor = ArrayCompressor().fit(Z)
    np.testing.assert_allclose(compressor.transform(Z), Z, rtol=1e-5, atol=1e-6 * (abs(value) or 1))
    assert len(compressor.compress(Z)) < 250  # 200 of which are overhead


def test_a_large_constant_column_does_not_hide_the_others():
    Z = np.c_[features(), np.full(N, 1e6 / 3)].astype(np.float64)
    compressor = rounding().fit(Z)
    assert compressor.scale_ == pytest.approx(math.sqrt(features().var(0).sum() / (D + 1)))
    width = math.sqrt(6 * compressor.beta) * compressor.scale_
    errors = np.abs(compressor.transform(Z) - Z)
    assert np.square(errors[:, :-1]).mean() <= 1.1 * width**2 / 12 and errors[:, -1].max() < 0.5


def test_a_single_cell_is_centred_at_the_mean():
    Z = features()
    compressor = ArrayCompressor(beta=1e12).fit(Z)
    np.testing.assert_allclose(compressor.transform(Z), np.tile(Z.mean(0), (N, 1)), rtol=1e-3)


@pytest.mark.parametrize("factor", [1e-40, 1e300])
@pytest.mark.parametrize("Z", [features(dtype=np.float64), np.ones((N, D))])
def test_values_outside_the_range_of_float32_are_errors(factor, Z):
    with pytest.raises(ValueError, match="unit"):
        ArrayCompressor().fit(factor * Z)


@pytest.mark.filterwarnings("error")
def test_values_that_overflow_are_errors_without_a_warning(klt):
    with pytest.raises(CodingError, match="not finite"):
        klt.compress(np.full((2, D), 1e300))


def test_invalid_matrices_are_errors(klt):
    for Z, message in (
        ([["a", "b"]], "could not convert|dtype"),
        ({1.0, 2.0}, "set"),
        (b"a payload", "bytes"),
        ([{1.0, 2.0}] * 5, "set"),
        ({"a": [1.0]}, "dict"),
        (pd.DataFrame({"a": ["b", "c"]}), "could not convert"),
    ):
        for use in (ArrayCompressor().fit, klt.compress):
            with pytest.raises((ValueError, TypeError), match=message):
                use(Z)
    with pytest.raises(ValueError, match="3 features, but ArrayCompressor is expecting 10"):
        klt.transform(np.ones((5, 3)))
    with pytest.raises(CodingError, match="cannot code"):
        klt.compress(np.full((2, D), 1e30))


@pytest.mark.parametrize(
    "Z, error",
    [
        (np.full((5, 3), np.nan), ValueError),
        (1e-40 * features(dtype=np.float64)[:, :3], ValueError),
        (pd.DataFrame(np.full((5, 3), np.inf), columns=[*"abc"]), ValueError),
        (features()[:, :3], KeyboardInterrupt),
    ],
    ids=["NaN", "tiny", "names", "interrupt"],
)
def test_a_failed_fit_changes_nothing(Z, error, tmp_path, monkeypatch):
    frame = pd.DataFrame(features(), columns=[f"f{i}" for i in range(D)])
    compressor, never_fitted = ArrayCompressor().fit(frame), ArrayCompressor()
    before, payload = vars(compressor).copy(), compressor.compress(frame)

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("lossyless.klt_vectors.KLTVectors.fit", interrupt)
    for estimator in (compressor, never_fitted):
        with pytest.raises(error):
            estimator.fit(Z)
    assert vars(compressor) == before and compressor.compress(frame) == payload
    assert vars(never_fitted) == vars(ArrayCompressor())
    compressor.save(tmp_path / "compressor.bin")
    assert ArrayCompressor.load(tmp_path / "compressor.bin").compress(frame) == payload


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("names", [[*"abcdefghij"], [*range(D)], [float(i) for i in range(D)]])
@pytest.mark.parametrize("n_columns", [1, D])
def test_data_frames_are_values(names, n_columns):
    """Names have no effect, even with as many rows as columns, or with one column."""
    Z = features(D)[:, :n_columns]
    frame = pd.DataFrame(Z, index=range(D, 0, -1), columns=names[:n_columns])
    plain, framed = (ArrayCompressor().fit(z) for z in (Z, frame))
    np.testing.assert_array_equal(framed.transform(frame), plain.transform(Z))
    np.testing.assert_array_equal(framed.decompress(framed.compress(frame)), plain.transform(Z))
    assert framed.n_bits(frame) == plain.n_bits(Z) and framed.score(frame) == plain.score(Z)


@pytest.mark.parametrize(
    "name, value",
    [
        ("beta", 0),
        ("beta", math.nan),
        ("rate_target", -1),
        ("rdo", 0.1),
        ("beta", True),
        ("weighting", -1),
        ("weighting", "full"),
        ("lr", -1),
        ("n_epochs", "many"),
        ("batch_size", 32.5),
        ("device", "gpu"),
    ],
)
def test_invalid_parameters_are_errors(name, value):
    is_default = name in ArrayCompressor().get_params()
    make = ArrayCompressor if is_default else ArrayCompressor.paper
    with pytest.raises(ValueError, match=re.escape(f"{name}={value!r}: expected")):
        make(**{name: value}).fit(features())


# --- payloads


def test_payloads_are_files_of_the_codec(klt, tmp_path):
    Z = features(50)
    payload = klt.compress(Z)
    (tmp_path / "Z.bin").write_bytes(payload)
    with FeatureFile(tmp_path / "Z.bin", klt.codec) as file:
        np.testing.assert_array_equal(file[:].numpy(), klt.transform(Z))
    for damaged in (b"", payload[:-1], payload + b"\0", b"something else", b"LLarray1" + payload):
        with pytest.raises(ContainerError, match="payload"):
            klt.decompress(damaged)
    with pytest.raises(TypeError, match="expected bytes"):
        klt.decompress("Z.bin")
    other = ArrayCompressor(beta=0.2).fit(features())
    with pytest.raises(ContainerError, match=klt.codec.fingerprint()):
        other.decompress(payload)


# --- files


def test_a_loaded_compressor_gives_the_same_bytes(fitted, tmp_path):
    path, Z = tmp_path / "compressor.bin", features(20, seed=1)
    fitted.save(path)
    loaded = ArrayCompressor.load(path)
    assert loaded.compress(Z) == fitted.compress(Z)
    assert loaded.score(Z) == fitted.score(Z)
    assert loaded.get_params() == fitted.get_params()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_models_of_other_releases(klt, tmp_path):
    """Unknown parameters are ignored; a missing mean or an unknown codec is an error."""
    path, later, older = tmp_path / "compressor.bin", copy.deepcopy(klt), copy.deepcopy(klt)
    later.get_params = lambda: klt.get_params() | {"patience": 3}
    later.save(path)
    assert ArrayCompressor.load(path).get_params() == klt.get_params()
    later.rate_.format_name = "wavelets"
    del older.rate_._buffers["mean"]
    for model, message in ((later, "'wavelets'"), (older, "mean")):
        model.save(path)
        with pytest.raises(WeightsError, match=f"compressor.bin.*{message}"):
            ArrayCompressor.load(path)


def test_parameters_are_saved_as_plain_data(klt, tmp_path):
    path, compressor = tmp_path / "compressor.bin", copy.deepcopy(klt)
    numbers = {"beta": np.float64(0.1), "rdo": np.bool_(True)}
    compressor.set_params(**numbers).save(path)
    loaded = ArrayCompressor.load(path).get_params()
    assert not any(isinstance(value, np.generic) for value in loaded.values())
    assert loaded.items() >= numbers.items()
    path.unlink()
    with pytest.raises(TypeError, match=r"beta=.*set_params\(beta="):
        compressor.set_params(beta=[0.1]).save(path)
    assert not path.exists()
    paper = ArrayCompressor.paper(random_state=np.random.RandomState(3)).fit(features())
    paper.save(path)
    assert ArrayCompressor.load(path).random_state is None


def test_changed_parameters_do_not_change_the_saved_model(fitted, tmp_path):
    other = copy.deepcopy(fitted).set_params(beta=0.7)
    other.save(tmp_path / "compressor.bin")
    loaded = ArrayCompressor.load(tmp_path / "compressor.bin")
    assert loaded.compress(features()) == fitted.compress(features())
    assert loaded.get_params() == other.get_params()


def test_names_of_columns_are_saved(tmp_path):
    frame = pd.DataFrame(features(50), columns=[f"f{i}" for i in range(D)])
    ArrayCompressor().fit(frame).save(tmp_path / "compressor.bin")
    loaded = ArrayCompressor.load(tmp_path / "compressor.bin")
    assert loaded.feature_names_in_.tolist() == list(frame.columns)
    loaded.transform(frame)
    with pytest.raises(ValueError, match="feature names should match"):
        loaded.transform(frame[frame.columns[::-1]])


def test_damaged_and_other_files_are_errors(klt, tmp_path):
    path = tmp_path / "compressor.bin"
    klt.save(path)
    content, rng = path.read_bytes(), np.random.default_rng(0)
    flipped = [flip_bit(content, rng.integers(len(content))) for _ in range(20)]
    for damaged in (content[:-1], content[:20], b"", b"something else", *flipped):
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match=str(path)):
            ArrayCompressor.load(path)


DECODE = """
import sys
import lossyless, lossyless.rates
assert "sklearn" not in sys.modules
from lossyless import ArrayCompressor
compressor = ArrayCompressor.load(sys.argv[1])
sys.stdout.buffer.write(compressor.decompress(sys.stdin.buffer.read()).tobytes())
"""


def test_another_process_decodes_the_same_values(klt, tmp_path):
    """Importing the package does not import scikit-learn either."""
    klt.save(tmp_path / "compressor.bin")
    Z = features(50, seed=1)
    command = [sys.executable, "-c", DECODE, str(tmp_path / "compressor.bin")]
    root = lossyless.__path__[0] + "/.."
    done = subprocess.run(command, input=klt.compress(Z), capture_output=True, cwd=root)
    assert done.stdout == klt.transform(Z).tobytes()


# --- scikit-learn


def test_training_depends_only_on_data_and_random_state():
    Z, state = features(), torch.get_rng_state()
    payloads = [ArrayCompressor.paper(random_state=s).fit(Z).compress(Z) for s in (0, 0, 1)]
    assert payloads[0] == payloads[1] != payloads[2]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("make", [ArrayCompressor, ArrayCompressor.paper])
def test_it_passes_the_checks_of_scikit_learn(make):
    results = check_estimator(make(), on_fail=None, on_skip=None)
    assert [r for r in results if r["status"] not in ("passed", "skipped")] == []
    tags = ArrayCompressor().__sklearn_tags__()
    assert tags.transformer_tags.preserves_dtype == ["float64", "float32"]


def test_it_works_in_pipelines_and_searches(tmp_path):
    Z = features(200)
    y = Z[:, 0] > Z[:, 0].mean()
    model = make_pipeline(ArrayCompressor(beta=0.01), LogisticRegression())
    assert model.fit(Z, y).score(Z, y) > 0.9
    search = GridSearchCV(ArrayCompressor(), {"beta": np.logspace(-2, 0, 2)}, cv=2)
    best = search.fit(Z).best_estimator_
    assert np.isfinite(search.best_score_)
    best.save(tmp_path / "compressor.bin")
    assert ArrayCompressor.load(tmp_path / "compressor.bin").beta == best.beta
