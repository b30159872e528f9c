"""The benchmark of feature compressors, on small synthetic features."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from utils.benchmarks.fewer_bits import __main__ as fewer_bits
from utils.benchmarks.fewer_bits import evaluation, methods, summary

D, N_CLASSES = 12, 4


def clusters(n: int = 160, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % N_CLASSES
    Z = rng.normal(size=(N_CLASSES, D))[y] + rng.normal(size=(n, D))
    return Z.astype(np.float32), y


@pytest.mark.parametrize("penalty", [0.003, 0.3])
def test_regression_agrees_with_scikit_learn(penalty):
    Z, y = clusters()
    Z -= Z.mean(0)
    weights = evaluation.fit_softmax(Z, y, penalty, np.zeros((D + 1, N_CLASSES)))
    clf = LogisticRegression(C=1 / (penalty * len(Z)), tol=1e-8, max_iter=1000).fit(Z, y)
    np.testing.assert_allclose(weights[:-1].T, clf.coef_, atol=0.01)


def test_uncompressed_rows_lose_nothing():
    split = next(evaluation.splits(*clusters(), 1))
    assert not set(split.train) & set(split.test)
    found = evaluation.quality(split, split.Z[split.train], split.Z[split.test])
    assert found["squared_error"] == 0 and found["recall"] == 1
    assert found["accuracy"] > 0.5


def test_payloads_of_plain_codecs_have_their_nominal_size():
    Z, _ = clusters()
    known = methods.methods("mnist")
    for name, bits, error in (
        ("float32", 32 * D, 0),
        ("float16", 16 * D, 1e-6),
        ("int8", 8 * D, 1e-4),
    ):
        method = known[name][""]()
        method.fit(Z)
        payload = method.encode(Z)
        assert 8 * len(payload) == bits * len(Z)
        assert ((method.decode(payload) - Z) ** 2).mean() <= error


def test_half_the_bits_at_equal_accuracy_are_a_ratio_of_two(tmp_path):
    bits = np.array([1000, 500, 250, 125, 60])
    accuracy = np.array([0.9, 0.89, 0.86, 0.83, 0.75])
    keys = {"network": "n", "data": "d", "fitted_on": "d"}
    frames = [
        pd.DataFrame(keys | {"method": name, "bits_test": b, "accuracy": a, "split": split})
        for split in range(2)
        for name, b, a in (
            ("float32", [4e4], [0.9]),
            ("paper", bits, accuracy),
            ("KLT", bits / 2, accuracy),
        )
    ]
    rows = pd.concat(frames).assign(parameters=range(22))
    rows.to_csv(tmp_path / "n_d.csv", index=False)
    (row,) = summary.ratios(rows, "paper").query("method == 'KLT'").itertuples()
    assert row.ratio == pytest.approx(2) == row.smallest
    assert row.reached == 1 and row.n_splits == 2
    summary.report(tmp_path)
    assert (tmp_path / "rate_accuracy.png").exists()
    table = pd.read_csv(tmp_path / "bits_at_accuracy.csv").set_index("method")
    assert table.loc["KLT", "-4"] == pytest.approx(125, rel=0.01)


def test_a_run_replaces_only_rows_that_it_measures_even_if_it_is_interrupted(tmp_path, monkeypatch):
    monkeypatch.setattr(methods, "RATES", (10,))
    for seed, data in enumerate(("caltech", "mnist")):
        for part, values in zip("Zy", clusters(seed=seed), strict=True):
            np.save(tmp_path / f"efficientnet_{data}_{part}.npy", values)
    places = ["--cache", str(tmp_path), "--out", str(tmp_path / "out")]
    places += ["--networks", "efficientnet", "--data", "mnist", "--methods"]
    for names in (["float32", "KLT"], ["int8"]):
        fewer_bits.main([*places, *names, "--splits", "1"])
    measure = fewer_bits.measure

    def interrupted(*arguments):
        yield next(measure(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(fewer_bits, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fewer_bits.main([*places, "KLT", "--splits", "1"])
    rows = pd.read_csv(tmp_path / "out/efficientnet_mnist.csv").set_index(["method", "data"])
    assert sorted(rows.index) == [
        ("KLT", "caltech"), ("KLT", "mnist"), ("float32", "mnist"), ("int8", "mnist"),
    ]  # fmt: skip
    assert rows.loc[("int8", "mnist"), "bits_test"] == 8 * D
