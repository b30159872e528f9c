"""The CLIP compressor's table, and bits at equal quality."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny import DIGITS, paths, run

import aggregate
from utils.aggregation import bit_ratios, clip_table
from utils.aggregation.bit_ratios import ratios
from utils.config import ConfigError


def rows_of(path: Path) -> dict[str, list[str]]:
    """First cell -> the others, of a table in Markdown."""
    lines = path.read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in cells}


# --- the table of data sets


def test_what_was_not_run_says_so(tmp_path):
    clip_table.summarize_clip(tmp_path / "exp", ["stl10", "imagenet"])
    rows = rows_of(tmp_path / "exp" / "clip_table.md")
    assert rows["stl10"] == ["not run", "not run", "not run", "1342", "98.5"]
    assert rows["imagenet"] == ["not run", "not run", "not run", "-", "-"]


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
    published = pd.read_csv(clip_table.PUBLISHED)
    assert len(published) == 8 and published["data"].is_unique
    assert published["rate"].between(1200, 1500).all()
    assert published["accuracy"].between(79, 99).all() and published["source"].notna().all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs of two codecs and two seeds; the experiment's folder lies in it."""
    tmp = tmp_path_factory.mktemp("clip_table")
    for seed in (1, 2):
        for beta in (0.01, 1.0):
            overrides = [f"seed={seed}", f"featurizer.loss.beta={beta}", "trainer.max_epochs=5"]
            run(tmp, "distortion=supervised", "rate=H_factorized", *overrides, base=DIGITS)
    return tmp


def of(tmp, *overrides):
    return ["experiment=none", *paths(tmp), *overrides]


def test_runs_are_read_from_disk(folder):
    mode = "aggregate.modes=[summarize_clip]"
    aggregate.main(of(folder, mode, "aggregate.summarize_clip.data=[digits,stl10]"))
    rows = rows_of(folder / "results" / "exp_none" / "clip_table.md")
    rate, bits, accuracy, *published = rows["digits"]
    assert "±" in rate and "±" in bits and "±" in accuracy and published == ["-", "-"]
    assert rows["stl10"][0] == "not run"


def test_runs_can_be_restricted(folder):
    results = folder / "results" / "exp_none"
    clip_table.summarize_clip(
        results, ["digits"], where={"predictor.name": "mlp_probe"}, file="mlp"
    )
    assert rows_of(results / "mlp.md")["digits"][0] == "not run"
    with pytest.raises(ConfigError, match=r"select.*val/pred/oops"):
        clip_table.summarize_clip(results, ["digits"], select="val/pred/oops")


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


def test_the_table_of_ratios(folder):
    results = folder / "results" / "exp_none"
    options = {"by": "beta", "baseline": "1.0e-02", "better": "1.0e-02"}
    bit_ratios.summarize_bit_ratios(results, **options)
    table = pd.read_csv(results / "bit_ratios.csv")
    assert (table["ratio"] == 1).all()
    assert "Smallest ratio: 1" in (results / "bit_ratios.md").read_text()


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
        bit_ratios.summarize_bit_ratios(folder / "results" / "exp_none", **chosen)


def test_without_a_common_cost_there_is_no_table(folder, capsys):
    options = {"by": "beta", "baseline": "1.0e-02", "better": "1.0e-02", "within": -1.0}
    results = folder / "results" / "exp_none"
    bit_ratios.summarize_bit_ratios(results, reference={"feat": "neural_feat"}, **options)
    assert "left out" in capsys.readouterr().err
