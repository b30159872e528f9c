"""Identity of a run: the part of its config that determines its results, and its hash.

A run is one stage under one config. Settings that cannot change results (paths, hardware, logging)
do not count, so the same experiment finds its folder again, and runs that differ in anything else
never share one. Modules do not count either: options are identified by name and settings, classes
by their own names.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from utils.configs.checks import CLASS

STAGES = ("featurizer", "communication", "predictor")

# Parts of the config that determine each stage, in addition to those of the earlier stages. The
# `featurizer` node contains, through interpolations, all parts of the compressor.
IDENTITY = {
    "featurizer": (
        "results_version",
        "compressor_of",
        "seed",
        "data_feat",
        "featurizer",
        "add_feat",
    ),
    "communication": ("data_pred", "communication"),
    "predictor": (
        "predictor",
        "optimizer_pred",
        "scheduler_pred",
        "checkpoint_pred",
        "add_pred",
        "seed_pred",
        "trainer_pred",
    ),
}
LEARNED_IDENTITY = {
    "featurizer": ("checkpoint_feat", "finetune", "trainer"),
    "communication": (),
    "predictor": ("trainer",),
}
# Settings of hardware, paths and logging, which do not affect results.
NOT_IDENTITY = (
    ("trainer", "accelerator"),
    ("trainer", "devices"),
    ("trainer", "num_nodes"),
    ("trainer", "log_every_n_steps"),
    ("data_feat", "kwargs", "n_workers"),
    ("data_pred", "kwargs", "n_workers"),
    # paths of weights; `weights_id` identifies their content
    ("data_feat", "kwargs", "clip_weights"),
    ("data_pred", "kwargs", "clip_weights"),
    ("tower", "kwargs", "weights"),
    ("tower", "batch_size"),
)
# Nodes whose class is identified by the name of the chosen option.
NAMED = ("data_feat", "data_pred", "tower", "predictor", "optimizer_pred", "scheduler_pred")
# For these, 1 means one batch and 1.0 means all of them; other numbers are compared by value.
BATCHES = ("limit_train_batches", "limit_val_batches", "limit_test_batches", "overfit_batches")
PRECISIONS = {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true", "64": "64-true"}
# Settings, or groups of them, that change how a job is executed, not which runs it makes.
EXECUTION_KEYS = (
    "aggregate",
    "export",
    "figures",
    "hydra",
    "hypopt",
    "job_id",
    "logger",
    "mode",  # the same for all jobs of an overview
    "monitor_return",
    "on_failed",
    "parallel_jobs",
    "paths",
    "queue",
    "slurm",
    "timeout_min",
    *(".".join(path) for path in NOT_IDENTITY),
)
# Settings that do not change the examples of a data set.
NOT_CONTENT = ("batch_size", "eval_batch_size", "n_workers", "clip_weights")
# Settings that change augmented splits only.
AUGMENTATION = ("equivalence", "val_equivalence", "p_augment", "is_augment_val")
# Properties of a data set that do not affect its images.
NOT_OF_IMAGES = ("name", "length", "mean", "std", "kwargs")


def identity(config: DictConfig | dict, stage: str) -> dict:
    """The part of a resolved config that determines the results of a stage."""
    if OmegaConf.is_config(config):
        config = OmegaConf.to_container(config, resolve=True)
    keys: list[str] = []
    for name in STAGES[: STAGES.index(stage) + 1]:
        keys += IDENTITY[name]
        if config["featurizer"]["is_learned"] or name == "predictor":
            keys += LEARNED_IDENTITY[name]
    if has_tower(config):
        keys.append("tower")
    if config.get("is_eval_train"):  # there are more metrics
        keys.append("is_eval_train")
    # configs saved before a key existed belong to other runs
    return {key: canonical(config.get(key), (key,)) for key in keys}


def canonical(node: object, path: tuple[str, ...]) -> object:
    """Canonical form of the node at `path` of a resolved config: equal forms mean equal results.

    It has no settings of `NOT_IDENTITY` and no empty groups. Classes are replaced by their own
    names, or dropped where the name of an option identifies them; 1.0 becomes 1.
    """
    if isinstance(node, Mapping):
        below = {
            key: canonical(value, (*path, key))
            for key, value in node.items()
            if (*path, key) not in NOT_IDENTITY and not (key == CLASS and path[0] in NAMED)
        }
        return {key: value for key, value in below.items() if value != {}}
    if isinstance(node, list):
        return [canonical(item, path) for item in node]
    if path[-1] == CLASS:
        return class_name(node)
    if path[-1] == "precision":
        return PRECISIONS.get(str(node), node)
    is_whole = isinstance(node, float) and node.is_integer() and path[-1] not in BATCHES
    return int(node) if is_whole else node


def class_name(target: str) -> str:
    """Name of a class without its module."""
    return target.rpartition(".")[2]


def has_tower(config: DictConfig | dict) -> bool:
    """Whether the inputs of the compressor are features of a frozen backbone."""
    return "tower" in config and config["tower"]["name"] != "none"


def feature_identity(cfg: DictConfig, place: str) -> tuple[dict, dict]:
    """The settings of a resolved config that determine the features of the data set at `place`.

    Returns two parts; the second, of augmentations, only matters for augmented splits. Raises
    ValueError if the backbone has neither weights nor a version.
    """
    _check_version(cfg.tower)
    tower = canonical(OmegaConf.to_container(cfg.tower, resolve=True), ("tower",))
    tower = {k: value for k, value in tower.items() if k not in ("name", "n_copies")}
    data = canonical(OmegaConf.to_container(cfg[place], resolve=True), (place,))
    kwargs = {k: value for k, value in data["kwargs"].items() if k not in NOT_CONTENT}
    # options with the same class and settings share features
    tower["class"], kwargs["class"] = (class_name(cfg[n].kwargs[CLASS]) for n in ("tower", place))
    tower["class"] = tower["class"].replace("Backbone", "Tower")  # as in existing caches
    augmentation = {k: kwargs.pop(k) for k in AUGMENTATION if k in kwargs}
    facts = {k: value for k, value in data.items() if k not in NOT_OF_IMAGES}
    return {"tower": tower, "data": facts | {"kwargs": kwargs}}, augmentation


def _check_version(tower: DictConfig) -> None:
    # `weights: null` means published weights
    is_made_by_class = tower.weights_id is None and "weights" not in tower.kwargs
    if is_made_by_class and tower.get("version") is None:
        raise ValueError(
            f"tower={tower.name} has neither `weights` nor a `version`, so cached features would "
            "be reused after a change of its class: add `version: 1` to "
            f"conf/tower/{tower.name}.yaml, and increase it whenever the class changes its output"
        )


def is_execution_setting(setting: str) -> bool:
    """Whether a setting changes how a job is executed, but not which runs it makes."""
    parts = setting.split(".")
    return any(".".join(parts[:n]) in EXECUTION_KEYS for n in range(1, len(parts) + 1))


def run_hash(config: DictConfig | dict, stage: str) -> str:
    """Ten hexadecimal digits of the identity."""
    return digest(identity(config, stage))


def digest(identity: dict) -> str:
    """Ten hexadecimal digits of a hash of an identity."""
    text = json.dumps(identity, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def path_parts(config: DictConfig | dict, stage: str) -> dict[str, str]:
    """Settings in the folder names of a run: {"datafeat": "banana_rot", "feat": ..., ...}."""
    is_learned = config["featurizer"]["is_learned"]
    beta = config["featurizer"]["loss"]["beta"]
    learned = {
        "dist": config["distortion"]["name"],
        "enc": config["encoder"]["name"],
        "rate": config["rate"]["name"],
        "optfeat": config["optimizer_feat"]["name"],
        "schedfeat": config["scheduler_feat"]["name"],
        "zdim": config["encoder"]["z_dim"],
        "zs": 1,
        "beta": None if beta is None else f"{float(beta):.1e}",
    }
    parts = {"datafeat": config["data_feat"]["name"], "feat": config["featurizer"]["name"]}
    parts |= learned if is_learned else dict.fromkeys(learned, "none") | {"zs": 1}
    if has_tower(config):
        parts |= {"enc": config["tower"]["name"], "zdim": config["encoder"]["z_dim"]}
    parts |= {"seed": config["seed"], "addfeat": config["add_feat"]}
    if stage != "featurizer":
        parts["datapred"] = config["data_pred"]["name"]
    if stage == "predictor":
        parts["optpred"] = config["optimizer_pred"]["name"]
        parts["schedpred"] = config["scheduler_pred"]["name"]
        parts["addpred"] = config["add_pred"]
    return {name: str(value) for name, value in parts.items()}


def experiment_folder(config: DictConfig | dict) -> str:
    """Name of the results folder of an experiment."""
    return f"exp_{config['experiment_name']}"


def compressor_folder(config: DictConfig | dict) -> str:
    """Name of the results folder of the experiment that holds the compressor."""
    return f"exp_{config['compressor_of']}"


def run_folder(cfg: DictConfig | dict, stage: str) -> Path:
    """Path of a run without its hash, relative to `paths.results`."""
    parts = [f"{name}_{value}" for name, value in path_parts(cfg, stage).items()]
    return Path(compressor_folder(cfg) if stage == STAGES[0] else experiment_folder(cfg), *parts)
