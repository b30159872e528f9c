"""The table of the CLIP compressor."""

from pathlib import Path

import pytest
from helpers.curve_runs import Runs, table

from utils.aggregation import clip_table
from utils.aggregation.experiment import Experiment
from utils.configs.checks import ConfigError


def rows_of(path: Path) -> dict[str, list[str]]:
    """Rows of a Markdown table: first cell -> other cells."""
    lines = path.read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in cells}


def test_data_sets_without_runs_are_marked(tmp_path):
    clip_table.summarize_clip(Experiment(tmp_path / "exp"), ["stl10", "imagenet"])
    rows = rows_of(tmp_path / "exp" / "clip_table.md")
    assert rows["stl10"] == ["not run", "not run", "not run", "1342", "98.5", "0"]
    assert rows["imagenet"] == ["not run", "not run", "not run", "-", "-", "0"]


def test_the_best_setting_on_validation_data_is_shown(tmp_path):
    runs = [
        {"datapred": "stl10", "optimizer_pred.kwargs.lr": lr, "seed": 1}
        | {"val/pred/err": err, "test/pred/acc": acc}
        for lr, err, acc in (("1", 0.2, 0.99), ("2", 0.1, 0.9))
    ]
    experiment = Runs(tmp_path, table(runs))
    (tmp_path / "config.yaml").write_text("{predictor: {name: linear}}")
    clip_table.summarize_clip(experiment, ["stl10", "pcam"])
    rows = rows_of(tmp_path / "clip_table.md")
    assert rows["stl10"][2] == "90.0" and rows["pcam"][2] == "not run"


@pytest.fixture
def runs(tmp_path):
    """Runs of two betas, two seeds and two predictors on the digits."""
    found = [
        {"datapred": "digits", "seed": seed, "beta": beta, "predictor.name": predictor}
        | {"featurizer.loss.beta": beta, "val/pred/err": 0.1, "test/pred/acc": 0.9 + seed / 100}
        | {"test/comm/rate": 50.0 + seed, "test/comm/n_bits": 60.0 + seed}
        for seed, beta, predictor in (
            (1, "0.01", "linear"),
            (2, "0.01", "linear"),
            (1, "1.0", "linear"),
            (1, "0.01", "linear_svc"),
        )
    ]

    def runs_where(where):
        return Runs(tmp_path, table(found), option="o", mode_where=where)

    return runs_where


def test_the_mean_and_error_over_seeds_are_shown(runs, tmp_path):
    where = {"beta": "0.01", "predictor.name": "linear"}
    clip_table.summarize_clip(runs(where), ["digits", "stl10"])
    rows = rows_of(tmp_path / "clip_table.md")
    assert rows["digits"] == ["51.5 ± 0.5", "61.5 ± 0.5", "91.5 ± 0.5", "-", "-", "2"]
    assert rows["stl10"][0] == "not run"
    with pytest.raises(ConfigError, match=r"select.*val/pred/oops"):
        clip_table.summarize_clip(runs(where), ["digits"], select="val/pred/oops")


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ({"predictor.name": "linear"}, ["beta: 0.01, 1.0"]),
        ({"beta": 0.01}, ["predictor.name: linear, linear_svc"]),
        ({}, ["beta: ", "predictor.name: "]),
    ],
    ids=["compressors", "predictors", "both"],
)
def test_runs_may_differ_in_the_training_of_their_predictor_only(runs, where, named):
    """Otherwise the best run would be the one with the most bits."""
    with pytest.raises(ConfigError, match=r"o\.where.*digits") as error:
        clip_table.summarize_clip(runs(where), ["digits"])
    assert all(text in str(error.value) for text in named)
