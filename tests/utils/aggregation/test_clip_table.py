"""The CLIP compressor's table, and bits at equal quality."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.curve_runs import Runs, table
from helpers.tiny import DIGITS, paths, run

import aggregate
from utils.aggregation import bit_ratios, clip_table
from utils.aggregation.bit_ratios import ratios
from utils.aggregation.experiment import Experiment
from utils.aggregation.paper_comparison import published_numbers
from utils.aggregation.tables import summarise
from utils.configs.checks import ConfigError


def rows_of(path: Path) -> dict[str, list[str]]:
    """First cell -> the others, of a table in Markdown."""
    lines = path.read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in cells}


# --- the table of data sets


def test_what_was_not_run_says_so(tmp_path):
    clip_table.summarize_clip(Experiment(tmp_path / "exp"), ["stl10", "imagenet"])
    rows = rows_of(tmp_path / "exp" / "clip_table.md")
    assert rows["stl10"] == ["not run", "not run", "not run", "1342", "98.5", "0"]
    assert rows["imagenet"] == ["not run", "not run", "not run", "-", "-", "0"]


def test_the_best_setting_on_validation_data_is_shown(tmp_path):
    """... and its test accuracy, though another one has a better one."""
    summary = pd.DataFrame(
        {
            "datapred": ["stl10", "stl10", "pcam"],
            "val/pred/err_mean": [0.2, 0.1, np.nan],
            "test/pred/acc_mean": [0.99, 0.9, 0.8],
        }
    )
    best = clip_table._best_of_each(summary, "val/pred/err")
    assert list(best.index) == ["stl10"] and best.loc["stl10", "test/pred/acc_mean"] == 0.9


def test_the_published_numbers_are_plausible():
    published = published_numbers()
    of_clip = published[published["experiment"] == clip_table.PUBLISHED]
    for metric, low, high in (("test/comm/rate", 1200, 1500), ("test/pred/acc", 0.79, 0.99)):
        rows = of_clip[of_clip["metric"] == metric]
        assert len(rows) == 8 and rows["data"].is_unique
        assert rows["value"].between(low, high).all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs of two codecs and two seeds, and of another predictor; the experiment's folder lies in
    it."""
    tmp = tmp_path_factory.mktemp("clip_table")
    codec = ["distortion=supervised", "rate=H_factorized", "trainer.max_epochs=5"]
    for seed in (1, 2):
        for beta in (0.01, 1.0):
            run(tmp, *codec, f"seed={seed}", f"featurizer.loss.beta={beta}", base=DIGITS)
    svm = ["architecture@predictor=linear_svc", "predictor.kwargs.n_draws=2"]
    run(tmp, *codec, "seed=1", "featurizer.loss.beta=0.01", *svm, base=DIGITS)
    return tmp


def of(tmp, *overrides):
    return ["experiment=none", "logger=none", *paths(tmp), *overrides]


def test_runs_are_read_from_disk(folder):
    mode = "aggregate.modes=[summarize_clip]"
    where = "aggregate.summarize_clip.where={beta: 0.01, predictor.name: linear}"
    aggregate.main(of(folder, mode, "aggregate.summarize_clip.data=[digits,stl10]", where))
    rows = rows_of(folder / "results" / "exp_none" / "clip_table.md")
    rate, bits, accuracy, *published, seeds = rows["digits"]
    assert "±" in rate and "±" in bits and "±" in accuracy and published == ["-", "-"]
    assert seeds == "2"
    assert rows["stl10"][0] == "not run"


def test_runs_can_be_restricted(folder):
    results = Experiment(folder / "results" / "exp_none")
    clip_table.summarize_clip(
        results, ["digits"], where={"predictor.name": "mlp_probe"}, file="mlp"
    )
    assert rows_of(results.folder / "mlp.md")["digits"][0] == "not run"
    with pytest.raises(ConfigError, match=r"select.*val/pred/oops"):
        where = {"predictor.name": "linear_svc"}
        clip_table.summarize_clip(results, ["digits"], select="val/pred/oops", where=where)


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ({"predictor.name": "linear"}, ["beta: ", "1.0e-02", "1.0e+00"]),
        ({"beta": 0.01}, ["predictor.name: linear", "linear_svc"]),
        (None, ["beta: ", "predictor.name: "]),
    ],
    ids=["compressors", "predictors", "both"],
)
def test_the_best_of_different_things_is_no_row(folder, where, named):
    """Compressors with more bits are better; how predictors are trained may be searched over."""
    results = Experiment(folder / "results" / "exp_none")
    with pytest.raises(ConfigError, match=r"summarize_clip\.where.*digits") as error:
        clip_table.summarize_clip(results, ["digits"], where=where)
    assert all(text in str(error.value) for text in named)


def test_only_the_training_of_a_predictor_is_searched_over():
    def check(**columns):
        runs = pd.DataFrame({"seed": ["1", "1"], "datapred": "digits"} | columns)
        clip_table._check_comparable("digits", runs)

    for key in ("optpred", "optimizer_pred.kwargs.lr", "predictor.kwargs.dropout", "seed"):
        check(**{key: ["1", "2"]})
    for key in ("feat", "rate", "zdim", "trainer.max_epochs", "tower.weights_id"):
        with pytest.raises(ConfigError, match=f"{key}: a, b"):
            check(**{key: ["a", "b"]})


# --- bits at equal cost


def front(bits, costs):
    return np.asarray(bits, float), np.asarray(costs, float)


def test_a_constant_factor_is_found_everywhere():
    """cost = a - b log(bits): fronts that interpolation in log-bits reproduces exactly."""
    slow, fast = np.array([100.0, 230.0, 900.0, 2000.0]), np.array([40.0, 77.0, 700.0, 1500.0])

    def cost(bits):
        return 1 - 0.1 * np.log(bits)

    found = ratios(front(slow, cost(slow)), front(fast, cost(2.5 * fast)))
    np.testing.assert_allclose(found["ratio"], 2.5)
    # as far as both reach, at the points of both
    assert found["cost"].iloc[0] == pytest.approx(min(cost(slow[0]), cost(2.5 * fast[0])))
    assert found["cost"].iloc[-1] == pytest.approx(max(cost(slow[-1]), cost(2.5 * fast[-1])))
    assert len(found) == 6


def test_the_smallest_ratio_is_at_a_point_of_a_front():
    a = front([100, 200, 1000], [0.5, 0.4, 0.1])
    b = front([50, 120, 300], [0.45, 0.3, 0.05])
    smallest = ratios(a, b)["ratio"].min()
    between = np.linspace(0.1, 0.45, 500)
    dense = bit_ratios.bits_at(a, between) / bit_ratios.bits_at(b, between)
    assert smallest <= dense.min() + 1e-12
    assert smallest == pytest.approx(dense.min(), rel=1e-2)


def test_costs_above_the_worst_are_left_out():
    a = front([100, 200, 1000], [0.5, 0.4, 0.1])
    found = ratios(a, a, worst=0.35)
    assert found["cost"].tolist() == [0.35, 0.1] and (found["ratio"] == 1).all()
    assert ratios(a, a, worst=0.05).empty


def test_fronts_are_chosen_on_validation_data():
    """... so that the run that is lucky on test data is not on it."""
    n_bits, val, test = [100, 200, 300, 400], [0.4, 0.3, 0.35, 0.1], [0.42, 0.33, 0.01, 0.12]
    runs = pd.DataFrame({"seed": "1", "group": list("abcd"), "state": "done", "beta": list("abcd")})
    runs = runs.assign(**{"test/comm/n_bits": n_bits, "test/pred/err": test})
    columns = ("test/comm/n_bits", "test/pred/err")
    bits, costs = bit_ratios._front(summarise(runs.assign(**{"val/pred/err": val})), *columns)
    assert list(bits) == [100, 200, 400] and list(costs) == [0.42, 0.33, 0.12]
    bits, costs = bit_ratios._front(summarise(runs), *columns)
    assert list(bits) == [100, 200, 300] and list(costs) == [0.42, 0.33, 0.01]


def test_fronts_fall_where_their_points_do_not():
    bits, costs = np.array([400.0, 100, 200, 300]), np.array([0.1, 0.5, 0.2, 0.3])
    found = bit_ratios.falling(bits, costs)
    assert found[0].tolist() == [100, 200, 400]
    np.testing.assert_allclose(found[1], [0.5, 0.25, 0.1])
    once = front([100, 200, 1000], [0.5, 0.4, 0.1])
    for before, after in zip(once, bit_ratios.falling(*once), strict=True):
        np.testing.assert_array_equal(before, after)


def test_the_table_of_ratios(folder):
    results = Experiment(folder / "results" / "exp_none")
    options = {"by": "beta", "baseline": "1.0e-02", "better": "1.0e-02"}
    bit_ratios.summarize_bit_ratios(results, **options)
    table = pd.read_csv(results.folder / "bit_ratios.csv")
    assert (table["ratio"] == 1).all()
    assert "Smallest ratio: 1" in (results.folder / "bit_ratios.md").read_text()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"by": "oops"}, "oops"),
        ({"y": "test/pred/oops"}, "oops"),
    ],
    ids=["parameter", "metric"],
)
def test_errors_name_what_is_wrong(folder, options, expected):
    chosen = {"by": "beta", "baseline": "1.0e-02", "better": "1.0e+00"} | options
    with pytest.raises(ConfigError, match=expected):
        bit_ratios.summarize_bit_ratios(Experiment(folder / "results" / "exp_none"), **chosen)


def test_a_kind_without_metrics_leaves_the_other_tables_alone(tmp_path, capsys):
    x, y = "test/comm/n_bits", "test/pred/err"
    runs = table(
        {"rate": rate, "beta": beta, "seed": 1, x: 9.0, y: cost}
        for rate, cost in (("H_hyper", 0.1), ("MI", float("nan")), ("H_klt", float("inf")))
        for beta in ("1", "2")
    )
    experiment = Runs(tmp_path, runs)
    for better in ("MI", "H_klt"):
        bit_ratios.summarize_bit_ratios(experiment, "rate", baseline="H_hyper", better=better)
        assert (
            f"left out: no run with rate={better} has both {x} and {y}" in capsys.readouterr().err
        )
    assert not (tmp_path / "bit_ratios.csv").exists()


def test_without_a_common_cost_there_is_no_table(folder, capsys):
    options = {"by": "beta", "baseline": "1.0e-02", "better": "1.0e-02", "within": -1.0}
    results = Experiment(folder / "results" / "exp_none")
    bit_ratios.summarize_bit_ratios(results, reference={"feat": "neural_feat"}, **options)
    assert "left out" in capsys.readouterr().err
