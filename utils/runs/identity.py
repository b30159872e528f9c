"""Identity of a run: the part of its config that determines its results, and its hash.

A run is one stage under one config. Settings that cannot change results (paths, hardware, logging)
are not part of the identity, so the same experiment always maps to the same folder, while runs that
differ in any other setting never share a folder. Module paths are not part of it either: options
are identified by their names and settings, and classes by their unqualified names.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from utils.configs.checks import CLASS

STAGES = ("featurizer", "communication", "predictor")

# Parts of the config that determine each stage, in addition to those of earlier stages. Through
# interpolation, the `featurizer` node contains all parts of the compressor.
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
# Hardware, path and logging settings, which do not affect results.
NOT_IDENTITY = (
    ("trainer", "accelerator"),
    ("trainer", "devices"),
    ("trainer", "num_nodes"),
    ("trainer", "log_every_n_steps"),
    ("trainer", "compile"),
    ("data_feat", "kwargs", "n_workers"),
    ("data_pred", "kwargs", "n_workers"),
    # names or paths of weights, which `weights_id` and `clip_weights_id` identify
    ("data_feat", "kwargs", "clip_weights"),
    ("data_pred", "kwargs", "clip_weights"),
    ("tower", "kwargs", "weights"),
    ("tower", "batch_size"),
)
# Nodes whose class is identified by the name of the selected option.
NAMED = ("data_feat", "data_pred", "tower", "predictor", "optimizer_pred", "scheduler_pred")
# In these settings, 1 means one batch and 1.0 all batches. Everywhere else, 1 and 1.0 are equal.
BATCHES = ("limit_train_batches", "limit_val_batches", "limit_test_batches", "overfit_batches")
PRECISIONS = {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true", "64": "64-true"}
# Settings, or groups of settings, that change how a job is executed but not which runs it creates.
EXECUTION_KEYS = (
    "aggregate",
    "checkpoint",
    "export",
    "figures",
    "hydra",
    "hypopt",
    "job_id",
    "logger",
    "mode",  # the same for all jobs in an experiment's folder
    "monitor_return",
    "on_failed",
    "parallel_jobs",
    "paths",
    "queue",
    "slurm",
    "timeout_min",
    *(".".join(path) for path in NOT_IDENTITY),
)
# Settings that do not change the examples in a data set.
NOT_CONTENT = ("batch_size", "eval_batch_size", "n_workers", "clip_weights")
# Settings that affect only augmented splits.
AUGMENTATION = ("equivalence", "val_equivalence", "p_augment", "is_augment_val")
# Properties of a data set that do not affect its images; `kwargs` are filtered separately.
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
    if config.get("is_eval_train"):  # adds metrics
        keys.append("is_eval_train")
    # a config saved before a key existed has None there, so it identifies a different run
    return {key: canonical(config.get(key), (key,)) for key in keys}


def canonical(node: object, path: tuple[str, ...]) -> object:
    """Canonical form of the node at `path` in a resolved config: equal forms give equal results.

    Settings in `NOT_IDENTITY` and empty groups are removed. Classes are replaced with their
    unqualified names, or removed where an option's name identifies them. Precisions get their
    current names, and whole floats become integers, except in `BATCHES`.
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
    """Unqualified name of a class."""
    return target.rpartition(".")[2]


def has_tower(config: DictConfig | dict) -> bool:
    """Whether the compressor's inputs are features from a frozen backbone."""
    return "tower" in config and config["tower"]["name"] != "none"


def feature_identity(cfg: DictConfig, place: str) -> tuple[dict, dict]:
    """The settings of a resolved config that determine the features of the data set at `place`.

    Returns two dicts: the second contains the augmentation settings, which affect only augmented
    splits. Raises ValueError if the backbone has neither weights nor a version.
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
            f"tower={tower.name} has neither `weights` nor a `version`, so features cached before "
            "a change to its class would be reused: add `version: 1` to "
            f"conf/tower/{tower.name}.yaml, and increment it whenever the output of the class "
            "changes"
        )


def is_execution_setting(setting: str) -> bool:
    """Whether a setting changes how a job is executed but not which runs it creates."""
    parts = setting.split(".")
    return any(".".join(parts[:n]) in EXECUTION_KEYS for n in range(1, len(parts) + 1))


def run_hash(config: DictConfig | dict, stage: str) -> str:
    """Ten hexadecimal digits that identify a stage under a config."""
    return digest(identity(config, stage))


def digest(identity: dict) -> str:
    """The first ten hexadecimal digits of an identity's hash."""
    text = json.dumps(identity, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def path_parts(config: DictConfig | dict, stage: str) -> dict[str, str]:
    """Settings that name a run's folders: {"datafeat": "banana_rot", "feat": ..., ...}."""
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
    return {name: str(canonical(value, (name,))) for name, value in parts.items()}


def experiment_folder(config: DictConfig | dict) -> str:
    """Name of an experiment's results folder."""
    return f"exp_{config['experiment_name']}"


def compressor_folder(config: DictConfig | dict) -> str:
    """Name of the results folder of the experiment that trains the compressor."""
    return f"exp_{config['compressor_of']}"


def run_folder(cfg: DictConfig | dict, stage: str) -> Path:
    """Path of a run's parent folder, relative to `paths.results` and to `paths.pretrained`."""
    parts = [f"{name}_{value}" for name, value in path_parts(cfg, stage).items()]
    return Path(compressor_folder(cfg) if stage == STAGES[0] else experiment_folder(cfg), *parts)
