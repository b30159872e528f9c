"""The table of the CLIP compressor."""

from pathlib import Path

import pytest
from helpers.curve_runs import Runs, table
from helpers.tiny import DIGITS, paths, run

import aggregate
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Results folder with runs of two betas, two seeds and two predictors."""
    tmp = tmp_path_factory.mktemp("clip_table")
    codec = ["distortion=supervised", "rate=H_factorized", "trainer.max_epochs=1"]
    for seed, beta in ((1, 0.01), (2, 0.01), (1, 1.0)):
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
    results = folder / "results" / "exp_none"
    probes, svms = (
        Experiment(results, mode_where={"predictor.name": name})
        for name in ("mlp_probe", "linear_svc")
    )
    clip_table.summarize_clip(probes, ["digits"], file="mlp")
    assert rows_of(results / "mlp.md")["digits"][0] == "not run"
    with pytest.raises(ConfigError, match=r"select.*val/pred/oops"):
        clip_table.summarize_clip(svms, ["digits"], select="val/pred/oops")


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ({"predictor.name": "linear"}, ["beta: ", "1.0e-02", "1.0e+00"]),
        ({"beta": 0.01}, ["predictor.name: linear", "linear_svc"]),
        ({}, ["beta: ", "predictor.name: "]),
    ],
    ids=["compressors", "predictors", "both"],
)
def test_runs_may_differ_in_the_training_of_their_predictor_only(folder, where, named):
    """Otherwise the best run would be the one with the most bits."""
    results = Experiment(folder / "results" / "exp_none", option="o", mode_where=where)
    with pytest.raises(ConfigError, match=r"o\.where.*digits") as error:
        clip_table.summarize_clip(results, ["digits"])
    assert all(text in str(error.value) for text in named)
