"""Tables average only over seeds, and join each run with the upstream runs it is based on."""

import json
import math
import shutil

import optuna
import pytest
from helpers.tiny import CLASSICAL, DIGITS, compose
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution

from utils.aggregation import tables
from utils.aggregation.metrics import select
from utils.aggregation.selection import restrict
from utils.aggregation.tables import NoRunsError
from utils.runs.identity import STAGES, experiment_folder
from utils.runs.run import find_run
from utils.search import study as studies

METRIC = {"featurizer": "test/feat/rate", "communication": "test/comm/n_bits"}
METRIC["predictor"] = "test/pred/loss"


@pytest.fixture
def write(tmp_path):
    """Write finished runs of all (or only the first) stages with made-up metrics."""

    def write_runs(*overrides, values=(1.0, 2.0, 3.0), base=DIGITS):
        cfg = compose(tmp_path, *overrides, base=base)
        OmegaConf.resolve(cfg)
        for stage, value in zip(STAGES, values, strict=False):
            run = find_run(cfg, stage)
            run.start(None)
            run.finish({METRIC[stage]: value, METRIC[stage].replace("test", "val"): -value})
        return tmp_path / "results" / experiment_folder(cfg)

    return write_runs


def test_mean_and_standard_error_over_seeds(write):
    exact = 53685.150320535715  # a fast parser gets the last bit wrong
    (row,) = summaries_of(write("seed=0", values=[exact] * 3))[0]["predictor"].to_dict("records")
    assert row["test/pred/loss_mean"] == exact and math.isnan(row["test/pred/loss_sem"])
    values = [1.0, 2.0, 4.5]
    for seed, value in enumerate(values):
        folder = write(f"seed={seed}", values=[value, 10 * value, -value])
    summaries, states = summaries_of(folder)
    (row,) = summaries["merged"].to_dict("records")
    mean = sum(values) / 3
    sem = math.sqrt(sum((v - mean) ** 2 for v in values) / 2 / 3)
    assert row["n_seeds"] == 3 and states == {"done": 9}
    assert row["test/feat/rate_mean"] == pytest.approx(mean)
    assert row["test/feat/rate_sem"] == pytest.approx(sem)
    assert row["test/comm/n_bits_mean"] == pytest.approx(10 * mean)
    assert row["val/pred/loss_mean"] == pytest.approx(mean)
    assert {name: len(summary) for name, summary in summaries.items()} == dict.fromkeys(
        tables.TABLES, 1
    )


@pytest.fixture
def start(tmp_path):
    """Start the featurizer of a run; if an error is given, end the run with it."""

    def start_run(*overrides, error=None):
        cfg = compose(tmp_path, *overrides, base=DIGITS)
        OmegaConf.resolve(cfg)
        run = find_run(cfg, "featurizer")
        run.start(None)
        if error is not None:
            run.status_file.record_end(error)
        return run

    return start_run


def summaries_of(folder):
    runs, states = tables.collect(folder)
    return tables.summaries(runs), states


DIFFERENCES = [
    "distortion=VAE",
    "featurizer.loss.beta=0.3001",  # after rounding, the folder names are equal
    "optimizer_feat.kwargs.lr=0.5",
    "add_feat=again",
]


@pytest.mark.parametrize("override", DIFFERENCES)
def test_only_seeds_are_averaged_and_other_differences_are_columns(write, override):
    write("featurizer.loss.beta=0.3", values=[1.0])
    folder = write("featurizer.loss.beta=0.3", override, values=[2.0])
    summary = summaries_of(folder)[0]["featurizer"]
    assert sorted(summary["test/feat/rate_mean"]) == [1.0, 2.0]
    assert tables.varying(summary)


def test_varying_settings_are_columns(write):
    write("optimizer_feat.kwargs.lr=0.25", "seed=1", values=[1.0])
    write("optimizer_feat.kwargs.lr=0.25", "seed=2", values=[3.0])
    folder = write("optimizer_feat.kwargs.lr=0.5", "seed=1", values=[7.0])
    table = select(summaries_of(folder)[0]["merged"], {"rate": "test/feat/rate"})
    key, title, seeds = table.columns
    assert key.endswith("lr") and title == "rate" and list(table[seeds]) == ["2", "1"]
    assert dict(zip(table[key], table["rate"], strict=True)) == {"0.25": "2 ± 1", "0.5": "7"}


def test_searched_settings_are_columns_of_the_stages_that_they_determine(write):
    write("distortion=VIC", "optimizer_feat.kwargs.lr=0.25", "optimizer_pred.kwargs.lr=1")
    folder = write("distortion=VAE", "optimizer_feat.kwargs.lr=0.5", "optimizer_pred.kwargs.lr=2")
    keys = ["optimizer_feat.kwargs.lr", "optimizer_pred.kwargs.lr"]
    study = optuna.create_study(storage=studies.storage(folder / studies.FILE))
    trial = study.ask(dict.fromkeys([*keys, "distortion"], CategoricalDistribution([1])))
    trial.set_user_attr("overrides", [])
    summaries = summaries_of(folder)[0]
    assert tables.varying(summaries["merged"]) == ["dist", *keys]
    assert tables.varying(summaries["featurizer"]) == ["dist", keys[0]]


def test_options_and_their_settings_are_both_shown_if_both_vary(write):
    write("architecture@predictor=linear")
    write("architecture@predictor=mlp_small", "predictor.kwargs.hid_dim=8")
    folder = write("architecture@predictor=mlp_small", "predictor.kwargs.hid_dim=9")
    summary = summaries_of(folder)[0]["merged"]
    assert len(summary) == 3
    assert len(summary[tables.varying(summary)].drop_duplicates()) == 3
    assert "predictor.name" in tables.varying(summary)


def test_stages_of_the_same_run_are_merged(write):
    for seed in (1, 2):
        for beta in (0.25, 0.5):
            base = [f"seed={seed}", f"featurizer.loss.beta={beta}"]
            for lr in (0.1, 0.2):
                value = 100 * beta + seed
                override = f"optimizer_pred.kwargs.lr={lr}"
                folder = write(*base, override, values=[value, 2 * value, 3 * value + lr])
    runs, _ = tables.collect(folder)
    merged = tables.merge(runs)
    assert [len(runs[stage]) for stage in STAGES] == [4, 4, 8] and len(merged) == 8
    expected = 3 * merged["test/feat/rate"] + merged["optimizer_pred.kwargs.lr"].astype(float)
    assert (merged["test/pred/loss"] - expected).abs().max() < 1e-9
    assert (merged["test/comm/n_bits"] == 2 * merged["test/feat/rate"]).all()


def test_unfinished_runs_are_counted_and_left_out(write, start):
    folder = write("seed=1")
    for seed, error in ((2, ValueError("x")), (3, KeyboardInterrupt()), (4, None)):
        start(f"seed={seed}", error=error)
    summaries, states = summaries_of(folder)
    assert states == {"done": 3, "failed": 1, "interrupted": 1, "lost": 1}
    for summary in summaries.values():  # also of the later stages of these runs
        assert summary[list(tables.COUNTS)].values.tolist() == [[1, 1, 2]]
        assert (summary.filter(like="_mean").notna()).all(axis=None)
    with start("seed=4").locked():
        assert summaries_of(folder)[1]["running"] == 1
    start("seed=5", "is_only_feat=true")  # has no later stages
    summaries, _ = summaries_of(folder)
    assert [summaries[stage]["n_missing"].item() for stage in STAGES] == [3, 2, 2]
    next(folder.glob("**/results_predictor.csv")).unlink()
    summary = summaries_of(folder)[0]["predictor"]
    assert summary[list(tables.COUNTS)].values.tolist() == [[0, 1, 3]]


@pytest.mark.parametrize(
    "key, names",
    [
        ("featurizer.loss.beta", (1, 1.0)),
        ("optimizer_feat.kwargs.lr", (0, 0.0, -0.0)),
        ("trainer.precision", (32, "32", "32-true")),
    ],
)
def test_names_of_one_value_are_one_run_and_one_row(write, key, names):
    for value in names:
        folder = write(f"{key}={value}", "seed=1")
    assert len([*folder.glob("**/results_featurizer.csv")]) == 1
    for seed, value in enumerate(names):
        write(f"{key}={value}", f"seed={seed}")
    runs = tables.with_settings(tables.collect(folder)[0]["featurizer"], [key])
    (row,) = tables.summarise(runs).to_dict("records")
    assert row["n_seeds"] == len(names)
    for value in names:
        assert len(restrict(runs, {key: value}, "where")) == len(names)


def test_one_batch_and_all_batches_are_two_settings(write):
    key = "trainer.limit_train_batches"
    write(f"{key}=1")
    runs = tables.collect(write(f"{key}=1.0"))[0]["featurizer"]
    assert len(tables.summarise(runs)) == 2
    for value in (1, 1.0):
        assert restrict(runs, {key: value}, "where")[key].tolist() == [str(value)]


@pytest.mark.parametrize("lost", ["file", "value", "column"])
def test_tables_state_how_many_seeds_each_mean_has(write, capsys, lost):
    folder = write("seed=1", values=[1.0, 1.0, 5.0])
    write("seed=2", values=[2.0, 1.0, 7.0])
    write("seed=3", values=[math.nan if lost == "value" else 4.0, 1.0, 9.0])
    (csv,) = folder.glob("**/seed_3/**/results_featurizer.csv")
    if lost == "file":
        csv.unlink()
    elif lost == "column":
        csv.write_text("other/feat/metric\n1.0\n")
    summary = summaries_of(folder)[0]["merged"]
    (row,) = summary.to_dict("records")
    assert (row["test/feat/rate_mean"], row["test/feat/rate_count"]) == (1.5, 2)
    assert (row["test/pred/loss_mean"], row["n_seeds"]) == (7.0, 3)
    assert "test/pred/loss_count" not in row
    shown = select(summary, {"rate": "test/feat/rate", "loss": "test/pred/loss"})
    assert shown["rate"].item().endswith("(2 of 3)") and "of" not in shown["loss"].item()
    assert [*tables.counts_of(row, ["test/feat/rate"]).values()] == [2, 0, 1]
    if lost != "column":
        assert str(csv.parent) in capsys.readouterr().err


def test_failed_copies_of_finished_runs_are_ignored(write):
    """Runs are identified by their configs: an older version may use another folder."""
    folder = write("seed=1")
    for file in folder.glob("**/run_*/status.json"):
        copy = file.parent.with_name("run_0")
        shutil.copytree(file.parent, copy)
        status = json.loads(file.read_text()) | {"state": "failed"}
        (copy / "status.json").write_text(json.dumps(status))
    for summary in summaries_of(folder)[0].values():
        assert summary[list(tables.COUNTS)].values.tolist() == [[1, 0, 0]]


def test_expected_seeds_without_runs_are_missing(write):
    write("seed=1")
    write("seed=1", "distortion=VAE")
    runs, _ = tables.collect(write("seed=3"))
    summary = tables.summarise(tables.merge(runs), seeds=[1, 2, 3]).set_index("dist")
    assert summary.loc["VIC", list(tables.COUNTS)].tolist() == [2, 0, 1]
    assert summary.loc["VAE", list(tables.COUNTS)].tolist() == [1, 0, 2]


def test_settings_without_finished_runs_are_rows(write, start, tmp_path):
    folder = write("seed=1")
    start("seed=1", "distortion=VAE", error=ValueError("x"))
    table = select(summaries_of(folder)[0]["merged"], {"rate": "test/feat/rate"})
    assert table.set_index("dist").T.to_dict("list") == {
        "VAE": ["-", "0 (1 failed)"],
        "VIC": ["1", "1"],
    }
    with pytest.raises(NoRunsError, match="nowhere.*no runs"):
        tables.collect(tmp_path / "nowhere")


def test_rows_are_sorted_by_number(write):
    write("featurizer=png", values=[9.0], base=CLASSICAL)
    for beta in ("0.5", "0.05", "1"):
        folder = write(f"featurizer.loss.beta={beta}", values=[float(beta)])
    summary = summaries_of(folder)[0]["featurizer"]
    betas = [beta for beta in summary["beta"] if beta not in ("None", "none")]
    assert betas == ["5.0e-02", "5.0e-01", "1.0e+00"]
