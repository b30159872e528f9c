"""Featurizers on the features of frozen backbones: stages, identities, conflicting settings."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny import DIGITS, SMALL, compose, paths, run, untimed
from omegaconf import OmegaConf
from torch import nn
from torchvision import models

from lossyless.backbones import Backbone, TorchvisionBackbone
from utils.cluster import sweep
from utils.configs.checks import ConfigError
from utils.configs.composing import compose_config
from utils.evaluation import communication
from utils.runs.identity import STAGES, run_hash
from utils.runs.run import find_run
from utils.training import building, jobs

MODEL, Z_DIM, N_CLASSES = "shufflenet_v2_x0_5", 48, 3
DATA = [o for o in DIGITS if o not in SMALL and not o.startswith(("encoder.", "decoder."))]
TOWER = [
    "tower=torchvision",
    f"tower.kwargs.model={MODEL}",
    "tower.kwargs.side=32",
    "tower.kwargs.layer=stage2",
    f"tower.kwargs.n_classes={N_CLASSES}",
    f"tower.z_dim={Z_DIM}",
]
LINEAR = [*SMALL, *DATA, *TOWER, "trainer.max_epochs=1"]
BOTTLENECK = ["featurizer=bottleneck_lossyZ", "rate=H_factorized"]
FORMATS = {
    "features_float32": 32 * Z_DIM,
    "features_int8": 8 * Z_DIM,
    "features_pca": 16 * 10,
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    """A file with the weights of a small network."""
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    save_weights(path, seed=0)
    return str(path)


def save_weights(path, seed):
    torch.manual_seed(seed)
    network = models.get_model(MODEL, weights=None, num_classes=N_CLASSES)
    torch.save(network.state_dict(), path)


@pytest.fixture
def calls(monkeypatch) -> list:
    """The towers that were created."""
    made = []
    init = TorchvisionBackbone.__init__

    def noting(self, *args, **kwargs):
        made.append(kwargs)
        init(self, *args, **kwargs)

    monkeypatch.setattr(TorchvisionBackbone, "__init__", noting)
    return made


def base(weights, *overrides):
    features = f"paths.features={Path(weights).parent}"  # computed once
    return [*LINEAR, features, f"tower.kwargs.weights={weights}", *overrides]


def prepared(folder, *overrides, base):
    with jobs.prepared(compose(folder, *overrides, base=base)) as cfg:
        return cfg


# --- all stages


def test_a_bottleneck_is_trained_on_cached_features(weights, tmp_path, calls):
    settings = base(weights, "featurizer=bottleneck_lossyZ", "rate=H_factorized_klt")
    metrics = run(tmp_path, base=settings)
    assert metrics["test/comm/n_bits"] > 0 and 0 <= metrics["test/pred/acc"] <= 1
    assert metrics["test/comm/encoder_time"] > 0 and "test/comm/bpp" not in metrics
    assert abs(metrics["test/comm/rate"] / metrics["test/feat/rate"] - 1) < 1e-3
    assert metrics["test/comm/n_bits"] < 1.1 * metrics["test/comm/rate"] + 32
    cfg = prepared(tmp_path, base=settings)
    assert {"enc_torchvision", f"zdim_{Z_DIM}"} <= set(find_run(cfg, "predictor").results.parts)
    assert building.build_compressor(cfg).rate.is_transform_missing
    assert not building.load_compressor(cfg).rate.is_transform_missing
    # the same from the cache, which other settings share
    for folder in ("results", "pretrained"):
        for path in (tmp_path / folder).glob("exp_*"):
            path.rename(path.with_name("old"))
    again = run(tmp_path, "is_only_feat=true", base=settings)
    assert untimed(again).items() <= metrics.items()
    run(tmp_path, "featurizer.loss.beta=0.5", "is_only_feat=true", base=settings)
    assert len(calls) <= 3  # one per split


def test_plain_formats_go_through_all_stages(weights, tmp_path):
    for featurizer, n_bits in FORMATS.items():
        overrides = ["featurizer.kwargs.n_components=10"] * (featurizer == "features_pca")
        overrides += ["is_only_feat=true"] * (featurizer != "features_int8")
        metrics = run(tmp_path, base=base(weights, f"featurizer={featurizer}", *overrides))
        assert metrics["test/feat/n_bits"] == metrics["test/feat/rate"] == n_bits
        if featurizer == "features_int8":
            header = metrics["test/comm/n_bits"] - n_bits
            assert 0 < header < 8 * 400 / 100  # bits per image: a header and a chunk for 400 images
            assert 0 <= metrics["test/pred/acc"] <= 1
        assert metrics["test/feat/sender_time"] > 0 <= metrics["test/feat/nmse"]
        assert (metrics["test/feat/mse"] == 0) == (featurizer == "features_float32")
        assert metrics["test/feat/nmse"] < (1 if featurizer == "features_pca" else 1e-3)
    # predictors are trained on decoded features
    cfg = prepared(tmp_path, base=base(weights, "featurizer=features_int8"))
    codec = building.load_compressor(cfg)
    batches = list(building.build_data(cfg, "data_pred", "none").loader("test"))
    z, y = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("x", "y"))
    work = find_run(cfg, "communication").work
    path = communication.data_file(work, "test")
    found = torch.cat(list(communication.receive(codec, path, torch.device("cpu"))))
    assert torch.equal(found, codec(z)) and not torch.equal(found, z)
    assert np.array_equal(communication.read_targets(work, "test"), y)
    assert building.load_predictor(cfg, codec).head(found[:2]).shape == (2, 10)


# --- identity


def test_the_content_of_weights_determines_the_run_not_their_path(weights, tmp_path):
    copy, other = tmp_path / "copy.pth", tmp_path / "other.pth"
    shutil.copyfile(weights, copy)
    save_weights(other, seed=1)
    first, same, different = (
        prepared(tmp_path, base=base(path, *BOTTLENECK)) for path in (weights, copy, other)
    )
    for stage in STAGES:
        assert run_hash(first, stage) == run_hash(same, stage) != run_hash(different, stage)


def feature_path(folder, *overrides, base, split="train", seed=1):
    cfg = prepared(folder, *overrides, base=base)
    return building.build_data(cfg, "data_feat", "none")._cache.path(split, 0, seed)


def test_cached_features_depend_on_the_right_settings(weights, tmp_path, monkeypatch):
    def path(*overrides, **options):
        return feature_path(tmp_path, *overrides, base=base(weights, *BOTTLENECK), **options)

    save_weights(tmp_path / "other.pth", seed=1)
    augmented = ["data_feat.kwargs.equivalence=[rotation]", "data_feat.kwargs.p_augment=0.5"]
    first, first_val = path(), path(split="val", seed=None)
    for override in (
        "tower.batch_size=64",
        "data_feat.kwargs.batch_size=32",
        "trainer.max_epochs=7",
        "data_feat.name=other",
        "data_feat.mean=[0.5]",
        "tower.name=other",
        "tower.n_copies=3",
    ):
        assert path(override) == first, override
    for override in (
        "tower.kwargs.padding=tensorflow",
        f"tower.kwargs.weights={tmp_path / 'other.pth'}",
        "data_feat.kwargs.margin=1",
        augmented[0],
    ):
        assert path(override) != first, override
    for override in augmented:  # changes the training set only
        assert path(override, split="val", seed=None) == first_val, override
    monkeypatch.setattr(building, "pick_device", lambda cfg: torch.device("cuda"))
    assert path() != first  # half precision


class MeansBackbone(Backbone):
    """A tower without weights: means of image patches."""

    def __init__(self, n_patches: int):
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(n_patches), nn.Flatten(1))
        super().__init__(pool, side=8)


def with_means_tower(folder, **more):
    cfg = compose(folder, *BOTTLENECK, base=[*SMALL, *DATA, "tower=torchvision"])
    cfg.tower.name, cfg.tower.z_dim = "means", 12
    target = f"{MeansBackbone.__module__}.MeansBackbone"
    cfg.tower.kwargs = {"_target_": target, "n_patches": 2}
    OmegaConf.update(cfg, "tower", more, force_add=True)
    OmegaConf.resolve(cfg)
    return cfg


def test_a_backbone_without_weights_must_state_a_version(tmp_path):
    """Otherwise cached features would be reused after its class changes."""
    cfg, newer = (with_means_tower(tmp_path, version=version) for version in (1, 2))
    data = building.build_data(cfg, "data_feat", "none")
    assert next(iter(data.loader("test"))).x.shape[1] == 12
    other = building.build_data(newer, "data_feat", "none")
    assert data._cache.path("test", 0, None) != other._cache.path("test", 0, None)
    assert run_hash(cfg, "featurizer") != run_hash(newer, "featurizer")
    for more in ({}, {"version": None}):
        with pytest.raises(ValueError, match=r"tower=means.*version.*conf/tower/means.yaml"):
            building.build_data(with_means_tower(tmp_path, **more), "data_feat", "none")
    # a tower that downloads its weights needs none
    cfg = prepared(tmp_path, base=[*SMALL, *DATA, *BOTTLENECK, "tower=rn50_simclr"])
    assert building.build_data(cfg, "data_feat", "none").shape == (2048,)


def test_missing_weights_prevent_the_launch(tmp_path, monkeypatch):
    monkeypatch.delenv("SOME_WEIGHTS", raising=False)
    variable = "tower.kwargs.weights=${oc.env:SOME_WEIGHTS,no.npz}"
    captions = "data@data_feat=coco_captions"
    for overrides, message in (
        ([*TOWER, variable], "tower.kwargs.weights: .*no.npz.*export SOME_WEIGHTS=FILE"),
        ([captions, "data_feat.kwargs.clip_weights=no.pt"], "data_feat.kwargs.clip_weights.*no.pt"),
    ):
        with pytest.raises(ConfigError, match=message):
            sweep.check_command_line([*paths(tmp_path), *overrides])
    assert list(tmp_path.iterdir()) == []


# --- the settings


def test_featurizers_set_default_towers_and_rates_that_can_be_overridden():
    name = "featurizer=bottleneck_rn50swav_lossyZ"
    for overrides, tower, z_dim, rate in (
        ([], "rn50_swav", 2048, "H_hyper"),
        (["tower=open_clip", "rate=lossless"], "open_clip", 512, "lossless"),
    ):
        cfg = compose_config([name, *overrides])
        assert (cfg.tower.name, cfg.encoder.name, cfg.encoder.z_dim) == (tower, tower, z_dim)
        assert (cfg.rate.name, cfg.distortion.name) == (rate, "lossy_Z")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["featurizer=neural_feat"], "neural_feat .*tower=none"),
        (["featurizer=features_int8", "tower=none"], "features_int8 .*tower"),
        ([*BOTTLENECK, "encoder.z_dim=64"], "encoder.z_dim=64.*48 dimensions"),
        ([*BOTTLENECK, "tower.z_dim=99", "encoder.z_dim=99"], "set tower.z_dim=48"),
        ([*BOTTLENECK, "distortion=VIC"], "representative.*lossy_Z"),
        ([*BOTTLENECK, "data@data_feat=banana_rot"], "takes images.*banana_rot.*vectors"),
    ],
)
def test_conflicting_settings_raise_errors(overrides, message, weights, tmp_path):
    unsuited = {"tower=none": TOWER, "data@data_feat=banana_rot": DATA}
    dropped = [o for choice in overrides for o in unsuited.get(choice, [])]
    settings = [o for o in LINEAR if o not in dropped]
    if "tower=none" not in overrides:
        settings.append(f"tower.kwargs.weights={weights}")
    cfg = prepared(tmp_path, base=[*settings, *overrides])
    auxiliary = "representative" if "distortion=VIC" in overrides else "none"
    with pytest.raises(ValueError, match=message):
        list(building.build_data(cfg, "data_feat", auxiliary).loader("val"))
