"""Every experiment composes and runs all stages, including figures, on little data."""

import itertools
from pathlib import Path

import pytest
from helpers import fake_data
from helpers.tiny import CLASSICAL, DIGITS, call, compose, paths, run
from omegaconf import DictConfig, OmegaConf

import aggregate
from utils import fetch_data
from utils.configs.composing import compose_config, expand
from utils.configs.overrides import CONF_DIR, given, parse, to_override_value
from utils.data.module import DataError
from utils.plots.figures import FIGURES
from utils.runs.identity import experiment_folder
from utils.runs.run import find_run

EXPERIMENTS = sorted(file.stem for file in CONF_DIR.glob("experiment/*.yaml"))
MODES = sorted(file.stem for file in CONF_DIR.glob("mode/*.yaml"))
# experiments whose results belong to another experiment, or are named after the paper's script
SHARED = {
    "digits_classical": "digits_viz_VIC",
    "STL10_action_dist_shift": "STL10_action_distribution_shift",
    "GalaxyZoo_neurips_final": "GalaxyZoo_neurips_table_final",
}
# experiments that start from another one's encoder
STEP_BEFORE = {"augmnist_stag_step2": "augmnist_stag_step1"}
TINY = ["logger=none", "trainer.accelerator=cpu", "trainer.max_epochs=1"]
TINY += ["trainer_pred.max_epochs=1", "communication.n_single=2", "communication.n_copies=1"]
SIZES = ("n_train=512", "n_eval=128", "batch_size=128")
TINY_BANANA = [f"{place}.kwargs.{s}" for place in ("data_feat", "data_pred") for s in SIZES]
# its figures pass half a million points through the networks
TINY_BANANA += ["encoder.kwargs.hid_dim=16", "decoder.kwargs.hid_dim=16"]
TINY_IMAGES = ["trainer.limit_train_batches=1"]
TINY_IMAGES += [f"{place}.kwargs.batch_size=4" for place in ("data_feat", "data_pred")]
TINY_TOWER = ["tower.kwargs.layer=layer1", "tower.z_dim=64"]
FAST = ["banana_RD", "digits_viz_VIC", "digits_classical", "augmnist_viz_VIC"]
FAST += ["clip_raw_linear_eval"]


@pytest.fixture(autouse=True)
def no_downloads(monkeypatch):
    fake_data.install(monkeypatch)
    monkeypatch.setenv("MOBILENET_V2_WEIGHTS", "random")


def config_of(experiment: str, *overrides: str) -> DictConfig:
    return compose_config([f"experiment={experiment}", *overrides])


def is_on_tower(experiment: str) -> bool:
    return experiment.startswith(("clip_", "ssl_", "mobilenet_")) or experiment.endswith("_CLIP")


def jobs_of(experiment: str, mode: str) -> list[list[str]]:
    """Overrides of a sweep's jobs or, for a search, enough to try every value of every setting."""
    parsed = parse(expand([f"experiment={experiment}", f"mode={mode}"]))
    choices = [[f"{o.get_key_element()}={to_override_value(v)}" for v in given(o)] for o in parsed]
    if config_of(experiment, f"mode={mode}").hypopt.name == "none":
        return [list(job) for job in itertools.product(*choices)]
    return [[c[i % len(c)] for c in choices] for i in range(max(map(len, choices)))]


def tiny(job: list[str], folder: Path) -> list[str]:
    """A job of an experiment, with little data and small networks."""
    cfg = compose(folder, base=job)
    data = cfg.data_feat
    if data.kind == "vector":
        return [*job, *TINY, *TINY_BANANA]
    if cfg.tower.name != "none":
        is_search = cfg.predictor.name == "linear_svc"
        lengths = fake_data.OVERRIDES if data.name != "digits" else []
        return [*job, *TINY, *TINY_TOWER, *lengths, *["predictor.kwargs.n_draws=2"] * is_search]
    if data.name == "digits":
        return [*job, *TINY, "trainer.limit_train_batches=2"]
    small = []
    if "n_workers" in data.kwargs:
        small += ["data_feat.kwargs.n_workers=0", "data_pred.kwargs.n_workers=0"]
    if data.name == "galaxy256":
        small += ["data_feat.kwargs.side=64", "data_pred.kwargs.side=64", "encoder.z_dim=256"]
    for place in ("encoder", "predictor"):
        if "stem" in cfg[place].kwargs:  # a smaller ResNet, whose stem quarters the sides
            small += [f"{place}.kwargs.base=resnet18", f"{place}.kwargs.stem=imagenet"]
    return [*job, *TINY, *TINY_IMAGES, *fake_data.OVERRIDES, *small]


# --- settings


@pytest.mark.filterwarnings("error")
def test_every_experiment_composes_with_its_sweep():
    for experiment, mode in itertools.product(EXPERIMENTS, ("none", "quick")):
        overrides = [f"experiment={experiment}", f"mode={mode}"]
        expanded = expand(overrides)
        assert expanded[-2:] == overrides, experiment
        cfg = compose_config(expanded)
        OmegaConf.resolve(cfg)
        assert all(set(content) <= {"overrides", "sweep"} for content in cfg.modes.values())
        assert set(cfg.modes) <= set(MODES), experiment
        # parts of an experiment, such as <experiment>_jpeg, share its results
        shared = [name for start, name in SHARED.items() if experiment.startswith(start)]
        assert cfg.experiment in experiment or cfg.experiment in shared, experiment
        assert cfg.experiment_name == cfg.mode_prefix + cfg.experiment, experiment
        if cfg.tower.name != "none":
            assert is_on_tower(experiment) and cfg.encoder.z_dim == cfg.tower.z_dim
            assert mode == "none" or cfg.tower.kwargs.weights == "random", experiment


@pytest.mark.parametrize("family", ["clip", "ssl"])
def test_experiments_of_a_family_share_one_bottleneck(family):
    same = ["featurizer=bottleneck_rn50sup_lossyZ"] if family == "ssl" else []
    same += ["featurizer.loss.beta=0.1"]
    parts = {"pretrain": [], "mlp_eval": ["stl10"], "linear_eval": ["pets37"]}
    configs = [
        config_of(f"{family}_bottleneck_{part}", *(f"data@data_pred={d}" for d in data), *same)
        for part, data in parts.items()
    ]
    assert len({find_run(cfg, "featurizer").results for cfg in configs}) == 1
    assert len({find_run(cfg, "predictor").results for cfg in configs}) == len(configs)


def test_there_is_one_list_of_data_sets():
    data_sets = list(config_of("none").aggregate.summarize_clip.data)
    for name in ("clip_bottleneck_linear", "ssl_bottleneck_linear", "ssl_towers_mlp"):
        assert list(config_of(f"{name}_eval").sweep["data@data_pred"]) == data_sets
    downloads = config_of("clip_download_data").sweep["data@data_feat"]
    assert list(downloads) == ["coco", *data_sets, "imagenet"]
    script = 'source bin/clip/data_sets.sh; echo "${data_sets[@]}"'
    assert call("bash", "-c", script).stdout.split() == data_sets


def test_each_data_set_has_its_own_study_judged_on_validation_data():
    for name, place in (("clip_bottleneck_mlp_eval", "pred"), ("clip_raw_mlp_eval", "feat")):
        configs = [config_of(name, f"data@data_{place}={data}") for data in ("stl10", "pets37")]
        assert len({cfg.hypopt.study_name for cfg in configs}) == 2
        for cfg in configs:
            assert (cfg.monitor_return, [*cfg.hypopt.direction]) == ("val/pred/loss", ["minimize"])


# --- runs


def first_jobs() -> list:
    """Each experiment in full and quick mode; all but one of each kind are marked slow."""
    is_fast = {("augmnist_stag_step2", "none"), ("STL10_balle", "none")}
    is_fast |= {(name, "quick") for name in FAST}
    return [
        pytest.param(name, mode, marks=() if (name, mode) in is_fast else pytest.mark.slow)
        for name, mode in itertools.product(EXPERIMENTS, ("none", "quick"))
        if mode == "quick" or not is_on_tower(name)  # which needs weights
    ]


@pytest.mark.parametrize(("experiment", "mode"), first_jobs())
def test_the_first_job_of_an_experiment_with_its_figures_and_tables(experiment, mode, tmp_path):
    base = tiny(jobs_of(experiment, mode)[0], tmp_path)
    if (needed := STEP_BEFORE.get(experiment)) is not None:
        run(tmp_path, base=tiny(jobs_of(needed, mode)[0], tmp_path))
    metrics = run(tmp_path, base=base)
    cfg = compose(tmp_path, base=base)
    found = find_run(cfg, "featurizer").results
    if cfg.featurizer.is_learned:
        drawn = {file.name.split(" ")[0] for file in found.glob("*.png")}
        expected = {FIGURES[name].file_name.split(" ")[0] for name in cfg.figures.names}
        assert drawn == expected
    if cfg.hypopt.name != "none":
        goals = cfg.monitor_return
        goals = [goals] if isinstance(goals, str) else goals
        assert all(name.startswith("val/") and name in metrics for name in goals)
    settings = ["aggregate.modes=[summarize_metrics]"] if is_on_tower(experiment) else []
    aggregate.main([f"experiment={experiment}", f"mode={mode}", *paths(tmp_path), *settings])
    assert (tmp_path / "results" / experiment_folder(cfg) / "summary.md").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if not is_on_tower(name)])
def test_all_jobs_of_an_experiment(experiment, tmp_path):
    if (needed := STEP_BEFORE.get(experiment)) is not None:
        for job in jobs_of(needed, "quick"):
            run(tmp_path, base=tiny(job, tmp_path))
    bases = [tiny(job, tmp_path) for job in jobs_of(experiment, "quick")]
    for base in bases:
        run(tmp_path, base=base)
    folders = {find_run(compose(tmp_path, base=base), "predictor").results for base in bases}
    assert len(folders) == len(bases)


@pytest.mark.parametrize("mode", sorted({*MODES} - {"none", "cpu", "continue"}))
def test_every_mode_runs(mode, tmp_path):
    """The data have few batches because some modes limit their number."""
    metrics = run(tmp_path, f"mode={mode}", "trainer.max_epochs=1", base=DIGITS)
    assert metrics["test/comm/n_bits"] > 0 and metrics["test/pred/loss"] >= 0
    assert [*tmp_path.glob(f"results/exp_{mode}_none/**/results_predictor.csv")]
    if mode == "dev":
        assert run(tmp_path, f"mode={mode}", "featurizer=png", "is_only_feat=true", base=CLASSICAL)


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
    with pytest.raises(SystemExit, match="2"):
        fetch_data.main(["experiment=clip_download_data", "data@data_feat=oops"])
