"""The experiments on features of frozen towers: what they share, and their quick modes for real."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from tiny import ROOT, call, paths, untimed

import aggregate
from utils import fetch_data, jobs, stages
from utils.config import CONF_DIR, compose_config, expand
from utils.data.base import DataError
from utils.runs import experiment_folder, run_hash

FAMILIES = ("clip_*", "ssl_*", "mobilenet_*", "GalaxyZoo_neurips_final_CLIP*")
EXPERIMENTS = sorted(
    {file.stem for family in FAMILIES for file in CONF_DIR.glob(f"experiment/{family}.yaml")}
    - {"clip_download_data"}  # it has no jobs
)
TINY = ["logger=none", "trainer.accelerator=cpu", "trainer.max_epochs=1", "parallel_jobs=1"]
TINY += ["trainer_pred.max_epochs=1", "communication.n_single=2", "communication.n_copies=1"]
TINY += ["tower.kwargs.layer=layer1", "tower.z_dim=64"]


@pytest.fixture(autouse=True)
def weights(monkeypatch):
    monkeypatch.setenv("MOBILENET_V2_WEIGHTS", "random")


def first_job(experiment: str, mode: str) -> list[str]:
    """The overrides of the first job of a sweep or search."""
    overrides = expand([f"experiment={experiment}", f"mode={mode}"])
    return [_first(o) for o in OverridesParser.create().parse_overrides(overrides)]


def _first(override) -> str:
    if not override.is_sweep_override():
        return override.input_line
    if override.is_interval_sweep():
        value = override.value().start
    else:
        value = next(iter(override.sweep_iterator()))
    return f"{override.get_key_element()}={value}"


def resolved(experiment: str, *overrides: str, mode: str = "none"):
    return compose_config([*first_job(experiment, mode), *overrides])


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("mode", ["none", "quick"])
def test_every_experiment_composes(experiment, mode):
    cfg = resolved(experiment, mode=mode)
    assert cfg.tower.name == "torchvision" if mode == "quick" else cfg.tower.name != "none"
    assert cfg.encoder.z_dim == cfg.tower.z_dim
    assert len(run_hash(cfg, "predictor")) == 10  # all of it resolves
    if mode == "quick" and "Galaxy" not in experiment:
        assert cfg.tower.kwargs.weights == "random" and cfg.data_feat.name == "digits"


def test_the_hyper_parameters_of_the_paper():
    cfg = resolved("clip_bottleneck_linear_eval")
    assert (cfg.data_feat.name, cfg.data_feat.kwargs.batch_size) == ("coco", 64)
    assert (cfg.tower.name, cfg.encoder.z_dim, cfg.rate.name) == ("clip_vitb32", 512, "H_hyper")
    assert (cfg.featurizer.loss.beta, cfg.trainer.max_epochs) == (0.05, 30)
    assert (cfg.optimizer_feat.kwargs.lr, cfg.optimizer_feat.kwargs.weight_decay) == (1e-3, 3e-8)
    assert cfg.distortion.name == "lossy_Z" and cfg.predictor.name == "linear_svc"


@pytest.mark.parametrize("family", ["clip", "ssl"])
def test_the_bottleneck_is_trained_once(family):
    names = [f"{family}_bottleneck_{part}" for part in ("pretrain", "linear_eval", "mlp_eval")]
    configs = [resolved(name) for name in names]
    configs.append(resolved(names[1], "data@data_pred=pets37"))
    assert len({run_hash(cfg, "featurizer") for cfg in configs}) == 1
    assert len({experiment_folder(cfg) for cfg in configs}) == 1
    assert len({run_hash(cfg, "predictor") for cfg in configs}) == len(configs)


def test_each_data_set_has_a_study_of_its_own_that_is_judged_on_validation_data():
    for name in ("clip_bottleneck_mlp_eval", "clip_raw_mlp_eval"):
        place = "data_pred" if "bottleneck" in name else "data_feat"
        studies = set()
        for data in ("stl10", "pets37"):
            cfg = compose_config([f"experiment={name}", f"data@{place}={data}"])
            assert cfg.monitor_return == "val/pred/loss" and list(cfg.hypopt.direction) == [
                "minimize"
            ]
            studies.add(cfg.hypopt.study_name)
        assert len(studies) == 2


def test_given_weights_are_taken_in_the_quick_mode():
    overrides = ["experiment=clip_bottleneck_linear_eval", "mode=quick"]
    cfg = compose_config(expand([*overrides, "tower.kwargs.weights=mine"]))
    assert cfg.tower.kwargs.weights == "mine"


# --- for real, on the digits


def tiny_job(experiment: str) -> list[str]:
    job = [*first_job(experiment, "quick"), *TINY]
    if "linear_svc" in str(compose_config(job).predictor.name):
        job.append("predictor.kwargs.n_draws=2")
    return job


RUN = ["clip_bottleneck_linear_eval", "clip_raw_linear_eval"]
SLOW = ["mobilenet_caltech", "mobilenet_caltech_pca", "clip_bottleneck_mlp_eval"]
RUN += [pytest.param(experiment, marks=pytest.mark.slow) for experiment in SLOW]


@pytest.mark.parametrize("experiment", RUN)
def test_the_quick_mode_runs_without_network_and_weights(experiment, tmp_path):
    base = tiny_job(experiment)
    metrics = run_job(tmp_path, base)
    assert metrics["test/comm/n_bits"] > 0 and 0 <= metrics["test/pred/acc"] <= 1
    aggregate.main(
        [f"experiment={experiment}", "mode=quick", *paths(tmp_path)]
        + ["aggregate.modes=[summarize_metrics]"]
    )
    cfg = compose_config(base)
    folder = tmp_path / "results" / experiment_folder(cfg)
    assert (folder / "summary.md").is_file()
    assert len(list(folder.glob("**/datapred_*/**/results_predictor.csv"))) == 1
    assert untimed(run_job(tmp_path, base)) == untimed(metrics)


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

    monkeypatch.setattr(fetch_data.training, "build_data", build)
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


@pytest.mark.parametrize("family", ["clip", "ssl", "mobilenet"])
def test_scripts_have_help(family):
    for script in sorted(ROOT.glob(f"bin/{family}/*.sh")):
        if script.stem == "data_sets":
            continue
        done = call(str(script), "-h")
        assert done.returncode == 0 and "-m MODE" in done.stdout
