"""Build data, backbones, compressors and predictors from a config, and load trained models."""

from collections.abc import Sequence
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from lossyless.backbones import Backbone, precision
from lossyless.base import Compressor
from lossyless.compressors import LearnableCompressor
from lossyless.optim import PartOptimizer
from lossyless.predictors import PredictionHead, Predictor
from utils.data.feature_cache import FeatureCache
from utils.data.features import FeatureDataModule
from utils.data.images import ImageDataModule
from utils.data.module import DataModule
from utils.runs.identity import feature_identity, has_tower
from utils.runs.run import find_run
from utils.training.callbacks import reseed

# Properties that the config of a data set declares, so that models can be built without the data.
DATA_FACTS = ("shape", "kind", "task", "n_outputs")


def pick_device(cfg: DictConfig) -> torch.device:
    """Return the device for `trainer.accelerator`; raise ValueError if it is unavailable."""
    wants_gpu = cfg.trainer.accelerator in ("gpu", "cuda")
    if wants_gpu and not torch.cuda.is_available():
        raise ValueError(
            f"trainer.accelerator={cfg.trainer.accelerator}, but torch sees no CUDA device: use "
            "trainer.accelerator=auto or cpu"
        )
    use_gpu = torch.cuda.is_available() and cfg.trainer.accelerator != "cpu"
    return torch.device("cuda" if use_gpu else "cpu")


def build_data(cfg: DictConfig, place: str, auxiliary: str) -> DataModule:
    """Build the data set at `place` (data_feat or data_pred) or, with a backbone, its features."""
    if has_tower(cfg):
        return _build_features(cfg, place, auxiliary)
    data = _build_examples(cfg, place, auxiliary=auxiliary)
    _check_takes(cfg, data.shape, place)
    return data


def _build_examples(cfg: DictConfig, place: str, **overrides: object) -> DataModule:
    """Build the data set itself, and check the properties that its config declares."""
    data = instantiate(cfg[place].kwargs, seed=cfg.seed, data_dir=cfg.paths.data, **overrides)
    stated = OmegaConf.to_container(cfg[place], resolve=True)
    for fact in DATA_FACTS:
        found, expected = getattr(data, fact), stated[fact]
        found = list(found) if isinstance(found, tuple) else found
        if found != expected:
            raise ValueError(
                f"conf/data/{cfg[place].name}.yaml says {fact}={expected}, but the data set has "
                f"{fact}={found}: correct the file"
            )
    if data.n_examples("train") != cfg[place].length:
        raise ValueError(
            f"data set {cfg[place].name}: length={cfg[place].length}, but there are "
            f"{data.n_examples('train')} training examples: correct `{place}.length`"
        )
    return data


def _build_features(cfg: DictConfig, place: str, auxiliary: str) -> FeatureDataModule:
    """Build the features of the images at `place`."""
    if place == "data_feat" and cfg.tower.kwargs.get("weights") == "random":
        print(f"tower={cfg.tower.name} has random weights: the results are meaningless")
    _check_takes(cfg, (cfg.tower.z_dim,), place)
    images = _build_examples(
        cfg,
        place,
        auxiliary="none",
        batch_size=cfg.tower.batch_size,
        eval_batch_size=cfg.tower.batch_size,
    )
    if not isinstance(images, ImageDataModule):
        raise ValueError(
            f"tower={cfg.tower.name} takes images, but {place}={cfg[place].name} contains vectors: "
            "choose tower=none or another data set"
        )
    device = pick_device(cfg)
    key, augmentation = feature_identity(cfg, place)
    # class name used by earlier versions, so that their caches remain valid
    key["data"]["kwargs"]["class"] = f"{images.source.name}DataModule"
    return FeatureDataModule(
        images,
        lambda: build_backbone(cfg),
        z_dim=cfg.tower.z_dim,
        cache=FeatureCache(
            Path(cfg.paths.features),
            label=f"{images.source.name}_{key['tower']['class'].removesuffix('Tower')}",
            key=key | {"precision": str(precision(device))},
            augmentation=augmentation,
        ),
        device=device,
        n_copies=cfg.tower.n_copies,
        auxiliary=auxiliary,
        batch_size=cfg[place].kwargs.batch_size,
        eval_batch_size=cfg[place].kwargs.eval_batch_size,
        seed=cfg.seed,
    )


def _check_takes(cfg: DictConfig, shape: Sequence[int], place: str) -> None:
    """Raise ValueError unless the featurizer accepts data or features of this shape."""
    if not cfg.featurizer.get("is_on_features", False):
        if has_tower(cfg):
            raise ValueError(
                f"featurizer={cfg.featurizer.name} works on the data itself, not on features of "
                f"tower={cfg.tower.name}: choose featurizer=bottleneck_lossyZ or tower=none"
            )
        return
    if len(shape) != 1:
        raise ValueError(
            f"featurizer={cfg.featurizer.name} compresses features, but "
            f"{place}={cfg[place].name} has examples of shape {list(shape)}: choose a tower, such "
            "as tower=clip_vitb32"
        )
    if shape[0] != cfg.encoder.z_dim:
        raise ValueError(
            f"encoder.z_dim={cfg.encoder.z_dim}, but the features of {place}={cfg[place].name} "
            f"(tower={cfg.tower.name}) have {shape[0]} dimensions, which compression preserves: "
            f"remove encoder.z_dim, or choose a matching {place} or tower"
        )


def build_backbone(cfg: DictConfig) -> Backbone:
    """Build the backbone of a config."""
    backbone = instantiate(cfg.tower.kwargs)
    if backbone.z_dim != cfg.tower.z_dim:
        raise ValueError(
            f"tower={cfg.tower.name} outputs features with {backbone.z_dim} dimensions, not "
            f"{cfg.tower.z_dim}: set tower.z_dim={backbone.z_dim}"
        )
    return backbone


def build_compressor(cfg: DictConfig) -> Compressor:
    """Build the compressor of a config, with weights initialised from the config's seed."""
    reseed(cfg.seed, "weights")
    return instantiate(cfg.featurizer.kwargs)


def load_compressor(cfg: DictConfig) -> Compressor:
    """Load the trained compressor of a config, in evaluation mode and on the config's device."""
    compressor = build_compressor(cfg)
    if compressor.state_dict():
        find_run(cfg, "featurizer").load_best(compressor)
    return compressor.eval().requires_grad_(False).to(pick_device(cfg))


def check_targets(compressor: LearnableCompressor, data: DataModule, name: str) -> None:
    """Raise ValueError if the data lack the targets that the probe or the distortion needs."""
    if data.is_labelled:
        return
    if compressor.online is not None:
        raise ValueError(
            f"data_feat={name} has no labels to train the online probe on: train without it "
            "by setting featurizer.kwargs.online=null"
        )
    if compressor.distortion.needs == "target":
        raise ValueError(f"data_feat={name} has no labels: choose another distortion or data set")


def build_predictor(cfg: DictConfig, in_shape: Sequence[int], compressor: Compressor) -> Predictor:
    """Build a randomly initialised predictor for decoded examples of shape `in_shape`."""
    is_standardised = compressor.is_reconstruct  # mean and std are those of images
    head = PredictionHead(
        instantiate(cfg.predictor.kwargs),
        in_shape,
        cfg.data_pred.task,
        cfg.data_pred.n_outputs,
        mean=cfg.data_pred.mean if is_standardised else None,
        std=cfg.data_pred.std if is_standardised else None,
    )
    optimizer = PartOptimizer(
        instantiate(cfg.optimizer_pred.kwargs),
        instantiate(cfg.scheduler_pred.kwargs),
        cfg.optimizer_pred.max_grad_norm,
    )
    return Predictor(head, optimizer)


def load_predictor(cfg: DictConfig, compressor: Compressor) -> Predictor:
    """Load the trained predictor of a config, in evaluation mode and on the config's device."""
    in_shape = cfg.data_pred.shape if compressor.is_reconstruct else [cfg.encoder.z_dim]
    predictor = build_predictor(cfg, in_shape, compressor)
    find_run(cfg, "predictor").load_best(predictor)
    return predictor.eval().requires_grad_(False).to(pick_device(cfg))
