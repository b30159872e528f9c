"""Identity of a run: which settings change its hash and its folder."""

from functools import partial

import pytest
import yaml
from helpers import tiny
from helpers.tiny import CLASSICAL, DIGITS, ROOT
from omegaconf import DictConfig, OmegaConf

from utils.configs.checks import CLASS
from utils.runs.identity import NOT_IDENTITY, STAGES, identity, is_execution_setting, run_hash
from utils.runs.run import find_run


@pytest.fixture(scope="module")
def resolved(tmp_path_factory):
    """Build resolved configs."""
    return partial(tiny.resolved, tmp_path_factory.mktemp("runs"), base=DIGITS)


def changed(cfg: DictConfig, key: str, value: object) -> DictConfig:
    cfg = cfg.copy()
    OmegaConf.update(cfg, key, value, force_add=True)
    return cfg


def hashes(cfg: DictConfig | dict) -> list[str]:
    saved = OmegaConf.to_container(cfg) if OmegaConf.is_config(cfg) else cfg  # once: it is slow
    return [run_hash(saved, stage) for stage in STAGES]


EXECUTION = {
    "slurm.name": "x",
    "hypopt.n_trials": 3,
    "mode": "none",
    "queue": "x",
    "paths.results": "elsewhere",
    "paths.data": "elsewhere",
    "trainer.accelerator": "gpu",
    "trainer.devices": 8,
    "trainer.num_nodes": 2,
    "trainer.log_every_n_steps": 7,
    "trainer.compile": True,
    "checkpoint.every_minutes": 0.5,
    "logger.name": "other",
    "parallel_jobs": 8,
    "timeout_min": 1,
    "job_id": "x",
    "on_failed": "resume",
    "monitor_return": "val/pred/loss",
    "figures.every_n_epochs": 3,
    "export.encoder": "x.pt",
    "data_feat.kwargs.n_workers": 16,
    "data_pred.kwargs.n_workers": 16,
}


def test_where_and_how_a_run_is_executed_is_not_its_identity(resolved):
    expected = hashes(resolved())
    for key, value in EXECUTION.items():
        assert hashes(changed(resolved(), key, value)) == expected, key
        assert is_execution_setting(key), key  # it may differ between attempts at a job
    assert hashes(changed(resolved(), "is_only_feat", True)) == expected
    assert hashes(changed(resolved(), "goal", "x")) == expected
    assert all(is_execution_setting(".".join(path)) for path in NOT_IDENTITY)
    for key in ("seed", "trainer.max_epochs", "distortion", "is_only_feat", "experiment"):
        assert not is_execution_setting(key)


def moved(node: object) -> object:
    """The same config with all classes moved to another module."""
    if isinstance(node, dict):
        return {
            key: f"elsewhere.{value.rpartition('.')[2]}" if key == CLASS else moved(value)
            for key, value in node.items()
        }
    return [moved(item) for item in node] if isinstance(node, list) else node


def test_modules_do_not_count(resolved):
    for tower in ("none", "torchvision"):
        cfg = OmegaConf.to_container(resolved(f"tower={tower}", base=CLASSICAL), resolve=True)
        assert moved(cfg) != cfg and hashes(moved(cfg)) == hashes(cfg)


def test_the_name_of_an_option_identifies_its_class():
    """Nodes of these groups are identified by their names, not by their classes."""
    for group in ("data", "tower", "architecture", "optimizer", "scheduler"):
        files = (ROOT / "conf" / group).glob("*.yaml")
        names = [yaml.safe_load(file.read_text()).get("name") for file in files]
        assert len(set(names)) == len(names), group


def test_values_count_and_not_how_they_are_written(resolved):
    for key, one, other, is_same in (
        ("featurizer.loss.beta", 1, 1.0, True),
        ("trainer.precision", 32, "32-true", True),
        ("trainer.precision", "bf16", "bf16-mixed", True),
        ("trainer.precision", 16, 32, False),
        ("trainer.limit_train_batches", 1, 1.0, False),
        ("encoder.kwargs", {"hid_dim": 8}, {"hid_dim": 8, "more": {}}, True),
    ):
        first, second = (hashes(changed(resolved(), key, value)) for value in (one, other))
        assert (first == second) is is_same, key


SETTINGS = {
    "featurizer": [
        "seed=4",
        "results_version=2",
        "featurizer.loss.beta=0.7",
        "featurizer.loss.beta_anneal=constant",
        "optimizer_feat.kwargs.lr=0.5",
        "optimizer_online.kwargs.lr=0.5",
        "scheduler@scheduler_feat=cosine",
        "trainer.max_epochs=9",
        "trainer.limit_train_batches=0.5",
        "trainer.precision=16-mixed",
        "data_feat.kwargs.batch_size=32",
        "data_feat.kwargs.p_augment=0.5",
        "encoder.z_dim=6",
        "encoder.kwargs.hid_dim=9",
        "architecture@online=mlp_small",
        "distortion=VAE",
        "distortion.factor_beta=2",
        "rate=H_factorized",
        "featurizer=neural_rec",
        "finetune=freezer",
        "finetune.init=other/encoder.pt",
        "checkpoint@checkpoint_feat=bestTrainLoss",
        "add_feat=again",
        "mode=debug",
    ],
    "communication": ["communication.n_copies=3", "communication.chunk_size=64"],
    "predictor": [
        "architecture@predictor=mlp_small",
        "optimizer_pred.kwargs.lr=0.5",
        "scheduler@scheduler_pred=cosine",
        "trainer_pred.max_epochs=1",
        "checkpoint@checkpoint_pred=bestTrainLoss",
        "add_pred=again",
    ],
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_setting_changes_its_stage_and_the_later_ones(resolved, stage):
    """Different settings also give different runs."""
    first = STAGES.index(stage)
    old = hashes(resolved())
    found = {override: hashes(resolved(override)) for override in SETTINGS[stage]}
    for override, new in found.items():
        is_changed = [a != b for a, b in zip(new, old, strict=True)]
        assert is_changed == [i >= first for i in range(3)], override
    for i in range(first, 3):
        assert len({new[i] for new in found.values()}) == len(found)


def test_training_settings_do_not_split_codecs_that_do_not_learn(resolved):
    old = resolved("featurizer=png", base=CLASSICAL)
    new = resolved("featurizer=png", "trainer.max_epochs=7", base=CLASSICAL)
    assert hashes(new)[:2] == hashes(old)[:2] and hashes(new)[2] != hashes(old)[2]


def test_the_saved_config_has_the_same_identity(resolved, tmp_path):
    odd = ["add_feat='1e-3'", "add_pred='on'", "goal='12:30'", "optimizer_feat.kwargs.lr=1.0e-5"]
    cfg = resolved(*odd)
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(cfg, sort_keys=True))
    saved = yaml.load((tmp_path / "config.yaml").read_text(), yaml.CSafeLoader)
    for stage in STAGES:
        assert identity(saved, stage) == identity(cfg, stage)
        assert run_hash(saved, stage) == run_hash(cfg, stage)


# --- paths


def test_paths_are_those_that_users_know(resolved):
    groups = ["data@data_pred=banana_rot", "scheduler@scheduler_feat=cosine"]
    cfg = resolved("experiment=test", "mode=debug", "encoder.z_dim=3", base=groups)
    root = cfg.paths.results
    found = [find_run(cfg, stage) for stage in STAGES]
    feat = (
        f"{root}/exp_debug_test/datafeat_digits/feat_neural_feat/dist_VIC/enc_cnn/rate_H_hyper/"
        f"optfeat_{cfg.optimizer_feat.name}/schedfeat_cosine/zdim_3/zs_1/"
        f"beta_{cfg.featurizer.loss.beta:.1e}/seed_123/addfeat_none"
    )
    comm = f"{feat}/datapred_banana_rot"
    names = cfg.optimizer_pred.name, cfg.scheduler_pred.name
    pred = f"{comm}/optpred_{names[0]}/schedpred_{names[1]}/addpred_none"
    for run, folder in zip(found, (feat, comm, pred), strict=True):
        assert str(run.csv) == f"{folder}/run_{run.id}/results_{run.stage}.csv"
        assert run.status_file.path == run.results / "status.json"
        assert run.work.name == run.results.name
        assert str(run.work).startswith(cfg.paths.pretrained)
    # codecs without training have the same folder levels
    codec = find_run(resolved("featurizer=png", base=CLASSICAL), "featurizer").results.parts
    levels = [[part.split("_")[0] for part in parts] for parts in (codec, found[0].results.parts)]
    assert levels[0][:-1] == levels[1][:-1] and {"dist_none", "zs_1"} <= set(codec)
