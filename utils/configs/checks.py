"""Checks of a composed config before any job starts: keys, values, architectures, weights."""

import difflib
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.nodes import Node

from utils.configs.resolvers import weights_id

TRAINERS, DATA = ("trainer", "trainer_pred"), ("data_feat", "data_pred")
CLASS = "_target_"  # Hydra's key for a class
MAX_LISTED = 20  # maximum number of keys to list in an error that also suggests similar ones
# Settings that accept fractions although their default in a config file may be an integer.
NUMBERS = {
    "every_minutes",
    "limit_test_batches",  # a number of batches or a fraction of them, like the next three
    "limit_train_batches",
    "limit_val_batches",
    "overfit_batches",
    "mem_gb",
    "p_norm",
    "total_factor",
}
# Settings that must be at least 1, and settings that must not be 0.
COUNTS = (
    *(f"{p}.{n}" for p in TRAINERS for n in ("max_epochs", "check_val_every_n_epoch")),
    *(f"{p}.kwargs.{n}" for p in DATA for n in ("batch_size", "eval_batch_size")),
    "communication.n_copies",
    "communication.n_single",
)
LIMITS = (
    *(f"{p}.limit_{split}_batches" for p in TRAINERS for split in ("train", "val", "test")),
    *(f"{p}.max_steps" for p in TRAINERS),
    "communication.chunk_size",
)
CHOICES = {
    "checkpoint_feat.split": ("train", "val"),
    "checkpoint_pred.split": ("train", "val"),
    "on_failed": ("restart", "resume"),
}
# Environment variables that `torchrun` sets in distributed processes, and their values for a single
# process.
WITHOUT_PEERS = {"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}
NETWORKS = ("encoder", "decoder", "projector", "online")  # keys that must hold a network
# Settings whose values are names of published weights or paths of files.
WEIGHT_SETTINGS = (
    "tower.kwargs.weights",
    "data_feat.kwargs.clip_weights",
    "data_pred.kwargs.clip_weights",
)
# Settings that are lists of strings. In data sets of points, `equivalence` is a single string.
LISTS = (
    "figures.names",
    "finetune.frozen",
    "aggregate.modes",
    "aggregate.summarize_RD_curves.mse_cols",
    "aggregate.plot_superpose.y",
    "aggregate.compare_to_paper.experiments",
    "aggregate.summarize_clip.data",
)
IMAGE_LISTS = ("equivalence", "val_equivalence")  # in data sets that have a `p_augment`
# Settings that become parts of folder names.
NAMES = ("experiment_name", "compressor_of", "add_feat", "add_pred")


class ConfigError(ValueError):
    """The command line or a config file is invalid."""


def check_known(option: str, names: Iterable[object], known: Iterable[object]) -> None:
    """Raise a `ConfigError` that lists the known names if any of `names` is unknown."""
    known = list(known)
    if unknown := [repr(name) for name in names if name not in known]:
        choices = ", ".join("null" if name is None else str(name) for name in known)
        raise ConfigError(f"{option}: unknown {', '.join(unknown)}; choose from {choices}")


def find_node(cfg: DictConfig, key: str) -> Node:
    """The node at a dotted key, with interpolations unresolved.

    Raises a `ConfigError` that suggests similar keys if the key is unknown.
    """
    node: object = cfg
    parts = key.split(".")
    for depth, part in enumerate(parts):
        if not isinstance(node, DictConfig) or part not in node:
            where = ".".join(parts[:depth]) or "the config"
            names = [str(name) for name in node] if isinstance(node, DictConfig) else []
            close = difflib.get_close_matches(part, names, n=3)
            hint = f"did you mean {' or '.join(close)}? " if close else ""
            if not close or len(names) <= MAX_LISTED:
                hint += f"Its keys: {', '.join(names) or 'none'}. "
            raise ConfigError(
                f"unknown key '{key}': {where} has no '{part}'; {hint}(+{key}=... adds a new key.)"
            )
        stated, node = node._get_node(part), OmegaConf.select(node, part)
    return stated


def expected_kind(name: str, stated: Node, value: object) -> str | None:
    """Describe the expected kind of value if `value` is of another kind; otherwise return None.

    `name` is the last part of the key, and `stated` the node that the value replaces. Null and
    interpolations match any kind, text matches lists of strings, and lists and numbers match text.
    """
    is_open = stated._is_none() or stated._is_missing() or stated._is_interpolation()
    if is_open or value is None or (isinstance(value, str) and "${" in value):
        return None
    words, kinds = _kinds(name, stated._value())
    is_right = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
    return None if is_right else words


def _kinds(name: str, stated: object) -> tuple[str, tuple[type, ...]]:
    """The kind of a setting, as text and as the types that its values may have."""
    if isinstance(stated, Mapping):
        return "a group of settings", (Mapping,)
    if isinstance(stated, Sequence) and not isinstance(stated, str):
        is_of_text = len(stated) == 0 or isinstance(stated[0]._value(), str)
        return "a list", (list, str) if is_of_text else (list,)
    if isinstance(stated, bool):
        return "true or false", (bool,)
    if isinstance(stated, float) or (isinstance(stated, int) and name in NUMBERS):
        return "a number", (float, int)
    if isinstance(stated, int):
        return "a whole number", (int,)
    return "text", (str, int, float, list)


def is_network(architecture: DictConfig) -> bool:
    """Whether an option of `architecture`, such as `cfg.encoder`, is a network.

    The config file of a network contains `_partial_: true`, because networks are built once shapes
    are known. The other options are evaluations; see `utils.evaluation.linear.Evaluation`.
    """
    return bool(architecture.kwargs.get("_partial_", False))


def check_references(cfg: DictConfig) -> None:
    """Raise `ConfigError` if a reference, such as `${a.b}` or `${oc.env:NAME}`, has no value."""
    try:
        OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(" ".join(str(error).split())) from error


def check_settings(cfg: DictConfig) -> None:
    """Raise `ConfigError` if a setting of a job has an invalid value."""
    _check_names(cfg)
    for place in NETWORKS:
        if not is_network(cfg[place]):
            raise ConfigError(
                f"architecture@{place}={cfg[place].name} is not a network, and is valid only as "
                f"architecture@predictor: choose a network for {place} (its config file sets "
                "`_partial_: true`)"
            )
    for key, choices in CHOICES.items():
        check_known(key, [OmegaConf.select(cfg, key)], choices)
    # otherwise, there would be nothing to train on, evaluate or transmit
    for key in COUNTS:
        value = OmegaConf.select(cfg, key)
        if not isinstance(value, (int, float)) or value < 1:
            raise ConfigError(f"{key} is {value}, expected at least 1")
    for key in LIMITS:
        if OmegaConf.select(cfg, key) == 0:
            raise ConfigError(f"{key} is 0, so results would be missing: choose another value")


def _check_names(cfg: DictConfig) -> None:
    """Raise `ConfigError` if the name of an experiment or job cannot be part of a folder name."""
    for key in ("experiment", *NAMES, *(["job_id"] if cfg.job_id is not None else [])):
        name = str(cfg[key])
        is_text = isinstance(cfg[key], (str, int, float)) and not isinstance(cfg[key], bool)
        is_folder = name not in ("", ".", "..") and "/" not in name and name.isprintable()
        if not (is_text and is_folder):
            raise ConfigError(f"{key} is {cfg[key]!r}, expected a valid folder name without '/'")
    if isinstance(cfg.experiment, float):  # in a file, 1e3 is a number
        raise ConfigError(f"experiment is the number {cfg.experiment}, expected a name in quotes")


def check_compilation(cfg: DictConfig) -> None:
    """Raise `ConfigError` if training steps are to be compiled but cannot be."""
    if not cfg.trainer.compile:
        return
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        raise ConfigError(
            f"trainer.compile=true needs a C++ compiler, but there is no {compiler}: install it "
            "(apt install g++ python3-dev), set CXX to another one, or set trainer.compile=false"
        )


def check_peers(cfg: DictConfig) -> None:
    """Raise `ConfigError` if a job and the environment disagree on the number of processes.

    In the environment of a distributed process, Lightning would make a single-process job wait for
    other processes, and would log nothing if RANK is above 0.
    """
    devices, nodes = cfg.trainer.devices, cfg.trainer.num_nodes
    is_started_here = cfg.slurm.executor == "joblib"
    if is_started_here and devices * nodes > 1 and os.environ.get("WORLD_SIZE", "1") == "1":
        raise ConfigError(
            f"trainer.devices={devices} and trainer.num_nodes={nodes} need {devices * nodes} "
            "processes, but there is only one: start them on this machine with slurm=local "
            "(-s local), or on a cluster (-s NAME)"
        )
    found = {name: os.environ.get(name, value) for name, value in WITHOUT_PEERS.items()}
    wrong = [name for name, value in WITHOUT_PEERS.items() if found[name] != value]
    if wrong and devices * nodes == 1:
        raise ConfigError(
            f"the environment has {' '.join(f'{name}={found[name]}' for name in wrong)}, but "
            f"trainer.devices=1 and trainer.num_nodes=1 need one process: unset {' '.join(wrong)}"
        )


def list_texts(cfg: DictConfig) -> None:
    """Replace strings with one-element lists where lists of strings are expected."""
    images = (p for p in DATA if OmegaConf.select(cfg, f"{p}.kwargs.p_augment") is not None)
    for key in (*LISTS, *(f"{p}.kwargs.{name}" for p in images for name in IMAGE_LISTS)):
        if isinstance(value := OmegaConf.select(cfg, key), str):
            OmegaConf.update(cfg, key, [value])


def expand_paths(cfg: DictConfig) -> None:
    """Replace `~` at the start of paths with the home folder; raise ConfigError for empty paths."""
    for key in (*(f"paths.{name}" for name in cfg.get("paths", ())), *WEIGHT_SETTINGS):
        try:
            path = OmegaConf.select(cfg, key)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{key}: {' '.join(str(error).split())}") from error
        if key not in WEIGHT_SETTINGS and not (isinstance(path, str) and path):
            raise ConfigError(f"{key} is {path!r}, expected a folder")
        if isinstance(path, str) and path.startswith("~"):
            OmegaConf.update(cfg, key, os.path.expanduser(path))


def check_weights(cfg: DictConfig) -> None:
    """Raise `ConfigError` if a weight file is missing."""
    for key in WEIGHT_SETTINGS:
        try:
            weights_id(OmegaConf.select(cfg, key))
        except FileNotFoundError as error:
            parent, _, name = key.rpartition(".")
            stated = str(OmegaConf.select(cfg, parent)._get_node(name)._value())
            variables = re.findall(r"oc\.env:(\w+)", stated)
            ways = [f"{key}=FILE", *(f"export {variable}=FILE" for variable in variables)]
            raise ConfigError(f"{key}: {error}: set {', or '.join(ways)}") from error
