"""Batches of every data set are those of earlier versions, so that results stay comparable.

For each data set in conf/data, augmentation, content of `Batch.aux` and split, `batches.json` holds
one number, a weighted sum of three batches. It also lists the augmentations. To add a data set (or
to replace numbers after a change that is meant to change batches):
`WRITE_BATCHES=1 pytest tests/utils/data/test_batches_stay.py -k NAME`.
"""

import json
import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import pytest
import torch
from helpers import fake_data
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from lossyless.base import Batch
from utils.configs.composing import compose_config
from utils.configs.overrides import CONF_DIR
from utils.data.images import ImageDataModule
from utils.data.module import AUXILIARIES, SPLITS, DataModule

FILE = Path(__file__).with_name("batches.json")
OPTIONS = sorted(file.stem for file in CONF_DIR.glob("data/*.yaml"))
SMALL = {"side": 16, "n_train": 50, "n_eval": 30, "feature_dim": 6, "n_workers": 0}
SETTINGS = {"seed": 5, "batch_size": 12, "eval_batch_size": 8, "is_complete": False}
SIZES = {"train": 36, "val": 20, "test": 20}
N_BATCHES = 3


@pytest.fixture
def fake_sources(monkeypatch, tmp_path):
    monkeypatch.setattr(fake_data, "SIZES", SIZES)
    fake_data.install_all(monkeypatch, tmp_path)
    return str(tmp_path)


def augmentations_of(data: DataModule) -> dict[str, dict]:
    """Augmentation settings to test."""
    if not isinstance(data, ImageDataModule):
        return {"own": {}}
    names = json.loads(FILE.read_text())["augmentations"]  # later ones would change all numbers
    if data.task != "classification" or not data.is_labelled or data.n_outputs > SIZES["train"]:
        names = [name for name in names if name != "label" and not name.startswith("equiv_")]
    return {
        "own": {},
        "all": {
            "equivalence": [name for name in names if "--" not in name],
            "val_equivalence": [name for name in names if name != "label"],
            "p_augment": 0.8,
            "is_augment_val": True,
        },
    }


def load(cfg: DictConfig, folder: str, **overrides) -> DataModule:
    small = {k: v for k, v in (SMALL | SETTINGS).items() if k in cfg.data_feat.kwargs}
    return instantiate(
        cfg.data_feat.kwargs, **({"seed": 5, "data_dir": folder} | small | overrides)
    )


def summary(batches: Iterable[Batch]) -> float:
    """A number that depends on every value of the batches and its position."""
    total = 0.0
    for batch in batches:
        for tensor in batch:
            if tensor is not None:
                values = tensor.double().flatten()
                total += float(values @ torch.arange(1.0, len(values) + 1).double().cos())
    return round(total, 5)


def summaries(option: str, folder: str) -> dict[str, float]:
    cfg = compose_config([f"data@data_feat={option}"])
    found = {}
    for name, settings in augmentations_of(load(cfg, folder)).items():
        for auxiliary in AUXILIARIES:
            try:
                data = load(cfg, folder, auxiliary=auxiliary, **settings)
            except InstantiationException:  # no positives without an augmentation
                assert auxiliary == "positive" and name == "own"
                continue
            for split in SPLITS:
                batches = islice(data.loader(split, epoch=1), N_BATCHES)
                found[f"{name} {auxiliary} {split}"] = summary(batches)
    return found


@pytest.mark.parametrize("option", OPTIONS)
def test_batches_of_data_sets_are_unchanged(option, fake_sources):
    found = summaries(option, fake_sources)
    expected = json.loads(FILE.read_text())
    if os.environ.get("WRITE_BATCHES"):
        lines = (f'"{k}": {json.dumps(v)}' for k, v in sorted((expected | {option: found}).items()))
        FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        return
    assert option in expected, f"WRITE_BATCHES=1 pytest {__file__} -k {option} adds its numbers"
    assert found.keys() == expected[option].keys()
    assert found == pytest.approx(expected[option], rel=1e-4, abs=1e-2)
