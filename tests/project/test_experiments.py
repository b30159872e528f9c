"""Every experiment and every mode runs through all stages, on a little data, figures included."""

import itertools

import pytest
from helpers import fake_data
from helpers.tiny import CLASSICAL, DIGITS, compose, run
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

import aggregate
from utils.configs.composing import compose_config, expand
from utils.configs.overrides import CONF_DIR
from utils.data.banana import BananaDataModule
from utils.plots.figures import FIGURES
from utils.runs.identity import experiment_folder
from utils.runs.run import find_run

# experiments on features of frozen backbones: see test_clip_experiments.py
ON_TOWERS = ("clip_", "ssl_", "mobilenet_", "GalaxyZoo_neurips_final_CLIP")
ALL = sorted(file.stem for file in CONF_DIR.glob("experiment/*.yaml"))
EXPERIMENTS = [name for name in ALL if not name.startswith(ON_TOWERS)]
# experiments whose results are part of another one's, or named after the paper's script
SHARED = {
    "digits_classical": "digits_viz_VIC",
    "STL10_action_dist_shift": "STL10_action_distribution_shift",
    "GalaxyZoo_neurips_final": "GalaxyZoo_neurips_table_final",
}
# experiments that start from the encoder of another one
STEP_BEFORE = {"augmnist_stag_step2": "augmnist_stag_step1"}
MODES = sorted(file.stem for file in CONF_DIR.glob("mode/*.yaml"))
TINY = ["logger=none", "trainer.accelerator=cpu", "trainer.max_epochs=1"]
TINY += ["trainer_pred.max_epochs=1", "communication.n_single=2", "communication.n_copies=1"]
SIZES = ("n_train=512", "n_eval=128", "batch_size=128")
TINY_BANANA = [f"{place}.kwargs.{s}" for place in ("data_feat", "data_pred") for s in SIZES]
# its figures pass half a million points through the networks
TINY_BANANA += ["encoder.kwargs.hid_dim=16", "decoder.kwargs.hid_dim=16"]
TINY_IMAGES = ["trainer.limit_train_batches=1"]
TINY_IMAGES += [f"{place}.kwargs.batch_size=4" for place in ("data_feat", "data_pred")]


@pytest.fixture(autouse=True)
def no_downloads(monkeypatch):
    fake_data.install(monkeypatch)


def jobs_of(experiment: str, mode: str) -> list[list[str]]:
    """Overrides of the jobs of a sweep; of a search, enough to try each value of each setting."""
    overrides = expand([f"experiment={experiment}", f"mode={mode}"])
    parsed = OverridesParser.create().parse_overrides(overrides)
    choices = [[f"{o.get_key_element()}={v}" for v in values_of(o)] for o in parsed]
    if compose_config([f"experiment={experiment}", f"mode={mode}"]).hypopt.name == "none":
        return [list(job) for job in itertools.product(*choices)]
    return [[c[i % len(c)] for c in choices] for i in range(max(map(len, choices)))]


def values_of(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    if override.is_interval_sweep():
        return [override.value().start, override.value().end]
    return [str(value) for value in override.sweep_iterator()]


def tiny(job: list[str], folder) -> list[str]:
    cfg = compose(folder, base=job)
    data = cfg.data_feat
    if data.kind == "vector":
        return [*job, *TINY, *TINY_BANANA]
    if data.name == "digits":
        return [*job, *TINY, "trainer.limit_train_batches=2"]
    streamed = ["data_feat.kwargs.n_workers=0", "data_pred.kwargs.n_workers=0"]
    in_workers = streamed if "n_workers" in data.kwargs else []
    small = []
    if data.name == "galaxy256":
        small = ["data_feat.kwargs.side=64", "data_pred.kwargs.side=64", "encoder.z_dim=256"]
    for place in ("encoder", "predictor"):
        if "stem" in cfg[place].kwargs:  # a ResNet, at the size of its features
            small += [f"{place}.kwargs.base=resnet18", f"{place}.kwargs.stem=imagenet"]
    return [*job, *TINY, *TINY_IMAGES, *fake_data.OVERRIDES, *in_workers, *small]


@pytest.mark.parametrize("experiment", ALL)
@pytest.mark.filterwarnings("error")
def test_every_experiment_composes_with_its_sweep(experiment, monkeypatch):
    monkeypatch.setenv("MOBILENET_V2_WEIGHTS", "random")
    for mode in ("none", "quick"):
        overrides = [f"experiment={experiment}", f"mode={mode}"]
        expanded = expand(overrides)
        assert expanded[-2:] == overrides
        modes = compose_config(overrides).modes
        assert all(set(content) <= {"overrides", "sweep"} for content in modes.values())
        assert set(modes) <= set(MODES)
        cfg = compose_config(expanded)
        OmegaConf.resolve(cfg)
        # parts of an experiment, such as <experiment>_jpeg, share its results
        shared = [name for start, name in SHARED.items() if experiment.startswith(start)]
        assert cfg.experiment in experiment or cfg.experiment in shared
        assert cfg.experiment_name == cfg.mode_prefix + cfg.experiment
        if cfg.tower.name != "none":
            assert cfg.encoder.z_dim == cfg.tower.z_dim
            assert mode == "none" or cfg.tower.kwargs.weights == "random"


def first_jobs() -> list:
    """Each experiment at full size and in quick mode; all but one of each kind are slow."""
    quick = {
        "none": ("augmnist_stag_step2", "STL10_balle"),
        "quick": ("banana_RD", "digits_viz_VIC", "digits_classical", "augmnist_viz_VIC"),
    }
    return [
        pytest.param(experiment, mode, marks=() if experiment in names else pytest.mark.slow)
        for mode, names in quick.items()
        for experiment in EXPERIMENTS
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
        assert all(name.startswith("val/") and name in metrics for name in cfg.monitor_return)
    settings = [f"paths.{name}={tmp_path}/{name}" for name in ("results", "pretrained", "data")]
    aggregate.main([f"experiment={experiment}", f"mode={mode}", *settings])
    assert (tmp_path / "results" / experiment_folder(cfg) / "summary.md").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_all_jobs_of_an_experiment(experiment, tmp_path):
    jobs = jobs_of(experiment, "quick")
    folders = set()
    for job in jobs:
        base = tiny(job, tmp_path)
        run(tmp_path, base=base)
        folders.add(find_run(compose(tmp_path, base=base), "predictor").results)
    assert len(folders) == len(jobs)


@pytest.mark.parametrize("mode", sorted({*MODES} - {"none", "cpu", "continue"}))
def test_every_mode_runs(mode, tmp_path):
    """On data with few batches: some modes limit their number."""
    metrics = run(tmp_path, f"mode={mode}", "trainer.max_epochs=1", base=DIGITS)
    assert metrics["test/comm/n_bits"] > 0 and metrics["test/pred/loss"] >= 0
    assert [*tmp_path.glob(f"results/exp_{mode}_none/**/results_predictor.csv")]
    if mode == "dev":
        assert run(tmp_path, f"mode={mode}", "featurizer=png", "is_only_feat=true", base=CLASSICAL)


@pytest.mark.parametrize("mode", ["none", "overfit"])
def test_epochs_see_new_batches_except_to_overfit(mode, tmp_path, monkeypatch):
    seeds = []
    loader = BananaDataModule.loader

    def noting(self, split, **kwargs):
        found = loader(self, split, **kwargs)
        if split == "train" and kwargs.get("shuffle") is None:
            seeds.append(found.seed)
        return found

    monkeypatch.setattr(BananaDataModule, "loader", noting)
    run(tmp_path, f"mode={mode}", "is_only_feat=true", "trainer.max_epochs=3")
    assert len(seeds) >= 3 and len(set(seeds)) == (1 if mode == "overfit" else len(seeds))
