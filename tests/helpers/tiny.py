"""Experiments that take a fraction of a second and write only to one folder."""

import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from utils.configs.composing import compose_config, set_values
from utils.configs.overrides import is_group, parse
from utils.runs.identity import STAGES
from utils.training import jobs, stages

ROOT = Path(__file__).parents[2]
SMALL = [
    "logger=none",
    "architecture@predictor=linear",
    "architecture@online=linear",
    "architecture@projector=linear",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
    "communication.n_single=3",
    "parallel_jobs=1",
]
BANANA = [
    *SMALL,
    "data@data_feat=banana_rot",
    "architecture@encoder=mlp_small",
    "architecture@decoder=mlp_small",
    "encoder.kwargs.hid_dim=8",
    "decoder.kwargs.hid_dim=8",
    "encoder.z_dim=2",
    "rate=H_factorized",
    *(
        f"{place}.kwargs.{size}"
        for place in ("data_feat", "data_pred")
        for size in ("n_train=256", "n_eval=64", "batch_size=64", "eval_batch_size=64")
    ),
]
# for full-size configs, whose networks are deep
NARROW = [f"{network}.kwargs.hid_dim=64" for network in ("encoder", "decoder", "online")]
DIGITS = [
    *SMALL,
    "data@data_feat=digits",
    "encoder.kwargs.hid_dim=4",
    "decoder.kwargs.hid_dim=4",
    "encoder.z_dim=4",
    "data_feat.kwargs.side=8",
    "data_feat.kwargs.margin=0",
    "data_pred.kwargs.side=8",
    "data_pred.kwargs.margin=0",
    "data_feat.kwargs.batch_size=512",
    "data_pred.kwargs.batch_size=512",
]
CLASSICAL = [o for o in DIGITS if "coder." not in o]
FUNCTIONS = dict(zip(STAGES, (stages.featurizer, stages.communicate, stages.predict), strict=True))


def paths(folder: Path) -> list[str]:
    """Overrides that keep all output inside `folder`."""
    return [
        f"paths.{name}={folder / name}"
        for name in ("results", "pretrained", "logs", "outputs", "data")
    ]


def compose(folder: Path, *overrides: str, base: list[str] = BANANA) -> DictConfig:
    """Unresolved config of a tiny experiment; options are composed once, values set afterwards."""
    parsed = parse([*base, *paths(folder), *overrides])
    cfg = _compose(tuple(o.input_line for o in parsed if is_group(o))).copy()
    set_values(cfg, [override for override in parsed if not is_group(override)])
    return cfg


_compose = cache(compose_config)


def resolved(folder: Path, *overrides: str, base: list[str] = BANANA) -> DictConfig:
    """The config of a tiny experiment with values in place of references."""
    cfg = compose(folder, *overrides, base=base)
    OmegaConf.resolve(cfg)
    return cfg


def run(folder: Path, *overrides: str, base: list[str] = BANANA) -> dict[str, float]:
    """Run all stages of a tiny experiment in this process; return their metrics."""
    with jobs.prepared(compose(folder, *overrides, base=base)) as cfg:
        metrics = {}
        for stage in STAGES[: 1 if cfg.is_only_feat else None]:
            metrics |= FUNCTIONS[stage](cfg)
        return metrics


def untimed(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics that do not depend on when and where they are computed."""
    return {name: value for name, value in metrics.items() if not name.endswith("_time")}


def call(*command: str, **options: object) -> subprocess.CompletedProcess:
    """Run a command in the project's folder with empty stdin and one thread; output is text."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    defaults = {"cwd": ROOT, "env": env, "timeout": 300, "stdin": subprocess.DEVNULL}
    return subprocess.run(command, text=True, **({"capture_output": True} | defaults | options))


def main_command(folder: Path, *overrides: str, base: list[str] = BANANA) -> list[str]:
    """The `python main.py` command for a tiny experiment."""
    return [sys.executable, "main.py", *base, *paths(folder), "parallel_jobs=1", *overrides]
