"""Settings that differ from those of the official scripts, and why.

`published/settings/*.yaml` hold the official settings of each experiment; see
`published/README.md`.
"""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from lossyless.predictors import PredictionHead
from utils.configs.composing import compose_config
from utils.configs.overrides import is_group, parse
from utils.data.augmentations import REGISTRY
from utils.data.examples import n_to_hold_out

SETTINGS = Path(__file__).parent / "published" / "settings"
ABSENT = "absent"


class Difference(NamedTuple):
    """A setting that differs from the official one."""

    key: str  # a setting, "sweep.<setting>" or a fact (`_fact`); "<key> (<job>)" if job-specific
    official: object
    ours: object
    reason: str | None  # None: unintentional

    def __str__(self) -> str:
        return f"{self.key}: {self.official}, here {self.ours}: {self.reason or 'no reason given'}"


@functools.cache
def published_settings() -> dict[str, dict]:
    """Tables of official settings, by experiment or by the option that selects a data set."""
    files = [OmegaConf.load(file) for file in sorted(SETTINGS.glob("*.yaml"))]
    tables = [item for file in files for item in OmegaConf.to_container(file).items()]
    return {name: table for name, table in tables if not name.startswith(".")}  # shared parts


def names_of(experiments: Sequence[str]) -> list[str]:
    """Names of the tables for experiments, each given by its config file or results folder."""
    return [
        name
        for name, table in published_settings().items()
        if {name, table.get("settings", {}).get("experiment")} & {*experiments}
    ]


def describe(name: str) -> str:
    """Describe how the settings of an experiment at full size differ from the official ones."""
    lines = [f"  {difference}" for difference in differences(name)]
    text = f"{name} at full size: settings that differ from the official ones: {len(lines)}"
    return "\n".join([text, *lines])


def changes(name: str, runs: Sequence[DictConfig]) -> list[str]:
    """Describe how runs (resolved configs) differ from their experiment at full size."""
    table = published_settings()[name]
    jobs = [settings for job in table.get("jobs", {}).values() for settings in job]
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        experiment = _config(_choice(name), *_options(_config(_choice(name)), run))
        # if the data set differs, so does everything that depends on it
        is_same_data = _fact(run, "data_feat.name") == experiment.data_feat.name
        of_data = () if is_same_data else ("splits", "augmentations", "parameters")
        for key in dict.fromkeys([*table.get("settings", {}), *jobs]):
            if key in experiment.sweep or key.startswith(of_data):
                continue
            stated, value = _fact(experiment, key), _fact(run, key)
            if value != stated:
                found.setdefault(f"{key}: {stated}", {})[str(value)] = None
    return [f"  {stated}, in these runs {', '.join(values)}" for stated, values in found.items()]


def _options(experiment: DictConfig, run: DictConfig) -> list[str]:
    """Overrides that set an experiment's swept config groups to the options chosen in a run."""
    groups = [key for key in experiment.sweep if is_group(parse([f"{key}=x"])[0])]
    names = {key: _fact(run, f"{key.rpartition('@')[2]}.name") for key in groups}
    return [f"{key}={name}" for key, name in names.items() if name != ABSENT]


def differences(name: str) -> list[Difference]:
    """The settings in which an experiment at full size differs from the official script."""
    table = published_settings()[name]
    reasons = table.get("differs", {})
    return [
        Difference(label, official, ours, reasons.get(label))
        for label, official, ours in _compared(name, table)
        if _comparable(label, official) != _comparable(label, ours)
    ]


def _compared(name: str, table: dict) -> Iterator[tuple[str, object, object]]:
    """Yield the label of each setting in a table, its official value and ours."""
    choice = _choice(name)
    cfg = compose_config([choice])
    for key, official in table.get("settings", {}).items():
        yield key, official, _fact(cfg, key)
    if "sweep" in table:
        official, ours = table["sweep"], OmegaConf.to_container(cfg.sweep, resolve=True)
        for key in dict.fromkeys([*official, *ours]):
            yield f"sweep.{key}", official.get(key, ABSENT), ours.get(key, ABSENT)
    for job, settings in table.get("jobs", {}).items():
        cfg = compose_config([choice, *job.split()])
        for key, official in settings.items():
            yield f"{key} ({job})", official, _fact(cfg, key)


def _choice(name: str) -> str:
    """The override that selects the experiment or data set of a table."""
    return name if "=" in name else f"experiment={name}"


@functools.cache
def _config(*overrides: str) -> DictConfig:
    """Compose a config; it is cached, so do not modify it."""
    return compose_config(overrides)


def _comparable(label: str, value: object) -> object:
    """Normalise the order and notation of swept values; return other values unchanged."""
    if not label.startswith("sweep."):
        return value
    if isinstance(value, list):
        return sorted(value, key=str)
    return parse([f"x={value}"])[0].value()


def _fact(cfg: DictConfig, key: str) -> object:
    """A setting of a config, or a fact that several settings determine.

    Facts are "parameters.PART", the number of parameters of the encoder, decoder, projector or
    predictor; "splits.PLACE", the number of examples in each split of data_feat or data_pred;
    and "augmentations", the probabilities and ranges of the equivalences of data_feat.
    """
    kind, _, of = key.partition(".")
    if kind == "parameters":
        return sum(parameter.numel() for parameter in _network(cfg, of).parameters())
    if kind == "splits":
        return _splits(cfg[of])
    if kind == "augmentations":
        names = cfg.data_feat.kwargs.equivalence
        members = {name: REGISTRY[name] for name in names if REGISTRY[name] is not None}
        return {
            name: {k: list(v) if isinstance(v, tuple) else v for k, v in vars(member).items()}
            | {"probability": member.probability}
            for name, member in members.items()
        }
    value = OmegaConf.select(cfg, key, default=ABSENT)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _network(cfg: DictConfig, part: str) -> nn.Module:
    """Build one network of a config, on the meta device."""
    with torch.device("meta"):
        if part == "encoder":
            return instantiate(cfg.featurizer.kwargs.p_ZlX).mapper
        if part == "predictor":
            is_image = cfg.featurizer.kwargs.is_reconstruct
            shape = cfg.data_pred.shape if is_image else [cfg.encoder.z_dim]
            arch = instantiate(cfg.predictor.kwargs)
            return PredictionHead(arch, shape, cfg.data_pred.task, cfg.data_pred.n_outputs).network
        return getattr(instantiate(cfg.distortion.kwargs), part)


def _splits(node: DictConfig) -> dict[str, int]:
    """The number of examples in each split of an image data set."""
    data = instantiate(node.kwargs)
    sizes = data.source.sizes
    n_val = sizes.get("val") or n_to_hold_out(sizes["train"], data.val_fraction)
    return {"train": node.length, "val": n_val, "test": sizes["test"]}
