"""Experiments on features of frozen backbones: what they share, and their quick modes."""

from functools import cache

import pandas as pd
import pytest
from helpers.tiny import call, paths, untimed
from hydra.core.override_parser.overrides_parser import OverridesParser

import aggregate
from utils import fetch_data
from utils.aggregation import aggregate as aggregate_runs
from utils.configs.composing import compose_config, expand
from utils.data.module import DataError
from utils.runs.identity import experiment_folder
from utils.runs.run import find_run
from utils.training import jobs, stages

TINY = ["logger=none", "trainer.accelerator=cpu", "trainer.max_epochs=1", "parallel_jobs=1"]
TINY += ["trainer_pred.max_epochs=1", "communication.n_single=2", "communication.n_copies=1"]
TINY += ["tower.kwargs.layer=layer1", "tower.z_dim=64"]


@pytest.fixture(autouse=True)
def weights(monkeypatch):
    monkeypatch.setenv("MOBILENET_V2_WEIGHTS", "random")


@cache
def first_job(experiment: str) -> list[str]:
    """The overrides of the first job of a sweep or search in the quick mode."""
    overrides = expand([f"experiment={experiment}", "mode=quick"])
    return [_first(o) for o in OverridesParser.create().parse_overrides(overrides)]


def _first(override) -> str:
    if not override.is_sweep_override():
        return override.input_line
    if override.is_interval_sweep():
        value = override.value().start
    else:
        value = next(iter(override.sweep_iterator()))
    return f"{override.get_key_element()}={value}"


def config_of(experiment: str, *overrides: str):
    return compose_config([f"experiment={experiment}", *overrides])


@pytest.mark.parametrize("family", ["clip", "ssl"])
def test_the_bottleneck_is_trained_once(family):
    same = ["featurizer=bottleneck_rn50sup_lossyZ"] if family == "ssl" else []
    same += ["featurizer.loss.beta=0.1"]
    configs = [
        config_of(f"{family}_bottleneck_{part}", *data, *same)
        for part, data in (
            ("pretrain", []),
            ("mlp_eval", ["data@data_pred=stl10"]),
            ("linear_eval", ["data@data_pred=pets37"]),
        )
    ]
    assert len({find_run(cfg, "featurizer").results for cfg in configs}) == 1
    assert len({find_run(cfg, "predictor").results for cfg in configs}) == len(configs)


def test_there_is_one_list_of_data_sets():
    data_sets = list(config_of("none").aggregate.summarize_clip.data)
    for name in (
        "clip_bottleneck_linear_eval",
        "ssl_bottleneck_linear_eval",
        "ssl_towers_mlp_eval",
    ):
        assert list(config_of(name).sweep["data@data_pred"]) == data_sets
    downloads = config_of("clip_download_data").sweep["data@data_feat"]
    assert list(downloads) == ["coco", *data_sets, "imagenet"]
    script = 'source bin/clip/data_sets.sh; echo "${data_sets[@]}"'
    assert call("bash", "-c", script).stdout.split() == data_sets


def test_each_data_set_has_a_study_of_its_own_that_is_judged_on_validation_data():
    for name in ("clip_bottleneck_mlp_eval", "clip_raw_mlp_eval"):
        place = "data_pred" if "bottleneck" in name else "data_feat"
        studies = set()
        for data in ("stl10", "pets37"):
            cfg = config_of(name, f"data@{place}={data}")
            assert cfg.monitor_return == "val/pred/loss" and list(cfg.hypopt.direction) == [
                "minimize"
            ]
            studies.add(cfg.hypopt.study_name)
        assert len(studies) == 2


def test_given_weights_are_taken_in_the_quick_mode():
    overrides = ["experiment=clip_bottleneck_linear_eval", "mode=quick"]
    cfg = compose_config(expand([*overrides, "tower.kwargs.weights=mine"]))
    assert cfg.tower.kwargs.weights == "mine"


# --- quick modes, on the digits


def tiny_job(experiment: str) -> list[str]:
    job = [*first_job(experiment), *TINY]
    if (
        compose_config(expand([f"experiment={experiment}", "mode=quick"])).predictor.name
        == "linear_svc"
    ):
        job.append("predictor.kwargs.n_draws=2")
    return job


SLOW = ["mobilenet_caltech", "mobilenet_caltech_pca", "clip_bottleneck_mlp_eval"]
RUN = ["clip_raw_linear_eval"]
RUN += [pytest.param(experiment, marks=pytest.mark.slow) for experiment in SLOW]


@pytest.mark.parametrize("experiment", RUN)
def test_the_quick_mode_runs_without_network_and_weights(experiment, tmp_path):
    base = tiny_job(experiment)
    metrics = run_job(tmp_path, base)
    assert metrics["test/comm/n_bits"] > 0 and 0 <= metrics["test/pred/acc"] <= 1
    if experiment in RUN:  # compressed float32, as the official code states, beside plain float16
        n_values = compose_config(base).encoder.z_dim
        assert 16 * n_values < metrics["test/comm/n_bits"] < metrics["test/comm/rate"]
        assert metrics["test/comm/rate"] < 33 * n_values
    aggregate.main(
        [f"experiment={experiment}", "mode=quick", *paths(tmp_path)]
        + ["aggregate.modes=[summarize_metrics]", "logger=none"]
    )
    cfg = compose_config(base)
    folder = tmp_path / "results" / experiment_folder(cfg)
    assert (folder / "summary.md").is_file()
    assert len(list(folder.glob("**/datapred_*/**/results_predictor.csv"))) == 1
    assert untimed(run_job(tmp_path, base)) == untimed(metrics)


def test_experiments_share_a_bottleneck_and_have_tables_of_their_own(tmp_path):
    names = ("clip_bottleneck_linear_eval", "clip_bottleneck_mlp_eval")
    found = {name: run_job(tmp_path, tiny_job(name)) for name in names}
    assert len({metrics["test/feat/rate"] for metrics in found.values()}) == 1
    for name, file in zip(names, ("clip_table", "clip_table_mlp"), strict=True):
        cfg = compose_config(expand([f"experiment={name}", "mode=quick"]))
        folder = tmp_path / "results" / experiment_folder(cfg)
        assert not list(folder.glob("**/results_featurizer.csv"))
        cfg.aggregate.modes = ["summarize_clip", "summarize_metrics"]
        aggregate_runs(cfg.aggregate, folder)
        (row,) = [s for s in (folder / f"{file}.md").read_text().splitlines() if "digits" in s]
        assert f"{100 * found[name]['test/pred/acc']:.1f}" in row
        merged = pd.read_csv(folder / "summarized_metrics_merged.csv")
        (rate,) = merged["test/feat/rate_mean"]
        assert rate == pytest.approx(found[name]["test/feat/rate"], rel=1e-12)


def run_job(folder, base):
    cfg = compose_config([*base, *paths(folder)])
    with jobs.prepared(cfg) as cfg:
        metrics = stages.featurizer(cfg)
        return metrics | stages.communicate(cfg) | stages.predict(cfg)


# --- downloads


def test_data_sets_are_fetched_one_after_the_other(monkeypatch, capsys):
    def build(cfg, place, auxiliary):
        if cfg.data_feat.name in ("coco", "imagenet"):
            raise DataError(f"put {cfg.data_feat.name} there by hand")
        return type("Data", (), {"n_examples": lambda self, split: 7})()

    monkeypatch.setattr(fetch_data.building, "build_data", build)
    with pytest.raises(SystemExit) as error:
        fetch_data.main(["experiment=clip_download_data"])
    message = str(error.value)
    assert "Missing: coco, imagenet" in message and "put coco there by hand" in message
    output = capsys.readouterr().out
    assert output.count("7 train") == 8 and output.index("== coco") < output.index("== stl10")


def test_one_data_set_can_be_fetched(capsys):
    fetch_data.main(["experiment=clip_download_data", "data@data_feat=digits"])
    assert "digits: 1,197 train, 200 val, 400 test" in capsys.readouterr().out


def test_a_misspelt_data_set_is_an_error():
    with pytest.raises(SystemExit, match="2"):
        fetch_data.main(["experiment=clip_download_data", "data@data_feat=oops"])
