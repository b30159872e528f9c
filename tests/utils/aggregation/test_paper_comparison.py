"""Published numbers next to ours: selection of runs, verdicts, and data files."""

import pandas as pd
import pytest
from helpers.curve_runs import Runs, table

from utils.aggregation import paper_comparison
from utils.aggregation.experiment import Experiment
from utils.configs.checks import ConfigError
from utils.configs.composing import compose_config

RATE, LOSS = "test/feat/rate", "test/pred/loss"


def runs(**columns):
    """VIC with two betas and three seeds; the lower beta is the published one."""
    return table(
        {"datafeat": "banana_rot", "dist": "VIC", "beta": beta, "seed": seed}
        | {RATE: rate + seed / 10, LOSS: 0.5}
        | columns
        for beta, rate in (("7.0e-02", 2.2), ("1.0e+00", 0.3))
        for seed in (0, 1, 2)
    )


def compare(folder, frame, **options):
    paper_comparison.compare_to_paper(Runs(folder, frame, **options), ["banana_viz_VIC"])
    found = pd.read_csv(folder / "paper_comparison.csv")
    return found.set_index(["method", "metric"])


def test_ours_is_the_mean_over_the_seeds_of_the_published_setting(tmp_path, capsys):
    found = compare(tmp_path, runs())
    row = found.loc["VIC", RATE]
    assert row["ours"] == pytest.approx(2.3) and row["sem"] == pytest.approx(0.1 / 3**0.5)
    assert (row["published"], row["n_seeds"], row["verdict"]) == (2.302, 3, "within")
    assert row["difference"] == pytest.approx(-0.002)
    assert found.loc["VIC", LOSS]["verdict"] == "outside"
    assert found.loc["VAE", RATE]["verdict"] == "not run" and pd.isna(
        found.loc["VAE", RATE]["ours"]
    )
    text = (tmp_path / "paper_comparison.md").read_text()
    assert text in capsys.readouterr().out and "2.3 ± 0.06" in text
    assert "1 of 2 numbers within the tolerance, 6 not run" in text
    assert "differ from the full-size experiment" in text  # the folder has another name


def test_seeds_without_the_number_are_missing(tmp_path):
    frame = runs()
    frame.loc[frame["seed"] == "2", RATE] = float("nan")
    row = compare(tmp_path, frame).loc["VIC", RATE]
    assert row["ours"] == pytest.approx(2.25)
    assert (row["n_seeds"], row["n_failed"], row["n_missing"]) == (2, 0, 1)


def test_beta_must_equal_the_published_one_exactly(tmp_path):
    frame = runs().query("beta == '7.0e-02'")
    near = Runs(tmp_path, frame)
    (tmp_path / "config.yaml").write_text("featurizer: {loss: {beta: 0.0697}}")
    paper_comparison.compare_to_paper(near, ["banana_viz_VIC"])
    assert set(pd.read_csv(tmp_path / "paper_comparison.csv")["verdict"]) == {"not run"}


def test_only_seeds_are_averaged(tmp_path):
    both = pd.concat([runs(zdim="1"), runs(zdim="2")], ignore_index=True)
    with pytest.raises(ConfigError, match=r"zdim: 1, 2.*aggregate\.where='\{zdim: 1\}'"):
        compare(tmp_path, both)
    assert compare(tmp_path, both, mode_where={"zdim": 2}).loc["VIC", RATE]["n_seeds"] == 3


def test_without_runs_everything_is_not_run_or_an_earlier_comparison_is_kept(tmp_path):
    folder = tmp_path / "exp_banana_viz_VIC"
    compare(folder, runs())
    before = (folder / "paper_comparison.csv").read_bytes()
    paper_comparison.compare_to_paper(Experiment(folder), ["banana_viz_VIC"])
    assert (folder / "paper_comparison.csv").read_bytes() == before
    paper_comparison.compare_to_paper(Experiment(tmp_path / "exp_clip_hub"), ["clip_hub"])
    text = (tmp_path / "exp_clip_hub/paper_comparison.md").read_text()
    assert text.count("not run") >= 2 and "no finished runs" in text


def test_experiments_without_published_numbers_are_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"\['x'\].*'banana_viz_VIC'"):
        paper_comparison.compare_to_paper(Experiment(tmp_path), ["x"])


@pytest.mark.parametrize("name", ["banana_viz_VIC", "augmnist_viz_VIC", "augmnist_RD", "clip_hub"])
def test_experiments_with_published_numbers_list_them(name):
    cfg = compose_config([f"experiment={name}"]).aggregate
    assert list(cfg.compare_to_paper.experiments) == [name]
    assert name in set(paper_comparison.published_numbers()["experiment"])


def test_the_files_have_one_schema_and_sources():
    for file in paper_comparison.PUBLISHED.glob("*.csv"):
        assert tuple(pd.read_csv(file)) == paper_comparison.COLUMNS
    numbers = paper_comparison.published_numbers()
    needed = ["experiment", "data", "metric", "value", "tolerance", "source"]
    assert numbers[needed].notna().all(axis=None)
    assert (numbers["tolerance"] > 0).all() and (numbers["tolerance"] < numbers["value"]).all()
    assert numbers["metric"].str.fullmatch(r"(test|val)/(feat|comm|pred)/\w+").all()
    assert not numbers.duplicated(["experiment", "data", "method", "beta", "metric"]).any()
    assert numbers["source"].str.contains("official code|paper").all()
