"""Building models, data and trainers from a config; fitting and evaluating them."""

import io
import logging
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import (
    Callback,
    LearningRateMonitor,
    ModelCheckpoint,
    TQDMProgressBar,
)
from pytorch_lightning.loggers import Logger
from torch import Tensor, nn

from lossyless.classical import ImageCodec
from lossyless.compressors import LearnableCompressor
from lossyless.optim import PartOptimizer
from lossyless.predictors import PredictionHead, Predictor
from lossyless.towers import Tower, precision
from lossyless.vector_codecs import VectorCodec
from utils.callbacks import ProgressLines, ReseedEveryEpoch, reseed
from utils.data.base import DataModule
from utils.data.features import FeatureCache, FeatureDataModule
from utils.data.images import ImageDataModule
from utils.runs import Run, feature_identity, find_run, has_tower, write_bytes

BEST, LAST = "best.ckpt", "last.ckpt"
MAX_FITTED = 2**16  # examples that a codec learns statistics from, such as a covariance
# Facts of a data set that its config states, so that models can be built from the config alone.
DATA_FACTS = ("shape", "kind", "task", "n_outputs")

Compressor = LearnableCompressor | ImageCodec | VectorCodec


def quiet() -> None:
    """Keep the terminal for what concerns the user."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # loaders make batches on the device
        ".*exists and is not empty.*",  # the folder of a run that resumes
        ".*isinstance\\(treespec.*",
        ".*smaller than the logging interval.*",
    ):
        warnings.filterwarnings("ignore", message)


def pick_device(cfg: DictConfig) -> torch.device:
    """The device of `trainer.accelerator`."""
    wants_gpu = cfg.trainer.accelerator in ("gpu", "cuda")
    if wants_gpu and not torch.cuda.is_available():
        raise ValueError(
            f"trainer.accelerator={cfg.trainer.accelerator}, but torch sees no CUDA device: use "
            "trainer.accelerator=auto or cpu"
        )
    use_gpu = torch.cuda.is_available() and cfg.trainer.accelerator != "cpu"
    return torch.device("cuda" if use_gpu else "cpu")


def build_data(cfg: DictConfig, place: str, auxiliary: str) -> DataModule:
    """The data set at `place` ("data_feat" or "data_pred"): its features, if there is a tower."""
    if has_tower(cfg):
        return _build_features(cfg, place, auxiliary)
    data = _build_examples(cfg, place, auxiliary=auxiliary)
    _check_takes(cfg, data.shape, place)
    return data


def _build_examples(cfg: DictConfig, place: str, **overrides: object) -> DataModule:
    """The data set at a place as it is, after a check of what its config states."""
    data = instantiate(cfg[place].kwargs, seed=cfg.seed, data_dir=cfg.paths.data, **overrides)
    stated = OmegaConf.to_container(cfg[place], resolve=True)
    for fact in DATA_FACTS:
        found, expected = getattr(data, fact), stated[fact]
        found = list(found) if isinstance(found, tuple) else found
        if found != expected:
            raise ValueError(
                f"conf/data/{cfg[place].name}.yaml says {fact}={expected}, but "
                f"{type(data).__name__} has {fact}={found}: correct the file"
            )
    if data.n_examples("train") != cfg[place].length:
        raise ValueError(
            f"data set {cfg[place].name}: length={cfg[place].length}, but there are "
            f"{data.n_examples('train')} training examples: correct `{place}.length`"
        )
    return data


def _build_features(cfg: DictConfig, place: str, auxiliary: str) -> FeatureDataModule:
    """The features of the images at a place."""
    if place == "data_feat" and cfg.tower.kwargs.get("weights") == "random":
        print(f"tower={cfg.tower.name} has random weights: its figures show the way, and no more")
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
            f"tower={cfg.tower.name} takes images, but {place}={cfg[place].name} are vectors: "
            "choose tower=none or another data set"
        )
    device = pick_device(cfg)
    key, augmentation = feature_identity(cfg, place)
    return FeatureDataModule(
        images,
        lambda: build_tower(cfg),
        z_dim=cfg.tower.z_dim,
        cache=FeatureCache(
            Path(cfg.paths.features),
            label=f"{_class_name(cfg[place], 'DataModule')}_{_class_name(cfg.tower, 'Tower')}",
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


def _class_name(node: DictConfig, ending: str) -> str:
    """Name of the class that a config makes, without its ending."""
    return node.kwargs["_target_"].rpartition(".")[2].removesuffix(ending)


def _check_takes(cfg: DictConfig, shape: Sequence[int], place: str) -> None:
    """Raise ValueError if a featurizer of features gets something else, or the reverse."""
    if not cfg.featurizer.get("is_on_features", False):
        if has_tower(cfg):
            raise ValueError(
                f"featurizer={cfg.featurizer.name} works on the data themselves, not on features "
                f"of tower={cfg.tower.name}: choose featurizer=bottleneck_lossyZ or tower=none"
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
            f"(tower={cfg.tower.name}) have {shape[0]} dimensions, and are compressed as they are: "
            f"leave out encoder.z_dim, or choose {place} or tower so that they agree"
        )


def build_tower(cfg: DictConfig) -> Tower:
    """The tower of a config."""
    tower = instantiate(cfg.tower.kwargs)
    if tower.z_dim != cfg.tower.z_dim:
        raise ValueError(
            f"tower={cfg.tower.name} gives features of {tower.z_dim} dimensions, not "
            f"{cfg.tower.z_dim}: set tower.z_dim={tower.z_dim}"
        )
    return tower


def build_compressor(cfg: DictConfig) -> Compressor:
    """The compressor of a config, with weights that depend on the seed only."""
    reseed(cfg.seed, "weights")
    return instantiate(cfg.featurizer.kwargs)


def load_compressor(cfg: DictConfig) -> Compressor:
    """The trained compressor of a config, in evaluation mode, on its device."""
    compressor = build_compressor(cfg)
    if not isinstance(compressor, ImageCodec):
        load_best(compressor, find_run(cfg, "featurizer"))
    return compressor.eval().requires_grad_(False).to(pick_device(cfg))


def fit_codec(codec: VectorCodec, data: DataModule, run: Run, device: torch.device) -> None:
    """Let a codec learn from training examples, and keep what it learnt for the other stages."""
    codec.fit(_training_examples(data, device))
    buffer = io.BytesIO()
    torch.save({"state_dict": codec.state_dict()}, buffer)
    write_bytes(run.work / BEST, buffer.getvalue())


def _training_examples(data: DataModule, device: torch.device) -> Tensor:
    """At most `MAX_FITTED` training examples [N, *shape], in random order."""
    found: list[Tensor] = []
    for batch in data.loader("train", device=device):
        found.append(batch.x)
        if sum(map(len, found)) >= MAX_FITTED:
            break
    return torch.cat(found)[:MAX_FITTED]


def check_targets(compressor: LearnableCompressor, data: DataModule, name: str) -> None:
    """Raise ValueError if something shall learn from the targets of unlabelled data."""
    if data.is_labelled:
        return
    if compressor.online is not None:
        raise ValueError(
            f"data_feat={name} has no labels for the online probe to learn from: train without it, "
            "with featurizer.kwargs.online=null"
        )
    if compressor.distortion.needs == "target":
        raise ValueError(f"data_feat={name} has no labels: choose another distortion or data set")


def build_predictor(cfg: DictConfig, in_shape: Sequence[int], compressor: Compressor) -> Predictor:
    """The predictor of a config for decoded examples of `in_shape`; its weights are drawn."""
    is_standardised = compressor.is_reconstruct  # what the data set states is about its examples
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
    """The trained predictor of a config, in evaluation mode, on its device."""
    in_shape = cfg.data_pred.shape if compressor.is_reconstruct else [cfg.encoder.z_dim]
    predictor = build_predictor(cfg, in_shape, compressor)
    load_best(predictor, find_run(cfg, "predictor"))
    return predictor.eval().requires_grad_(False).to(pick_device(cfg))


def load_best(module: nn.Module, run: Run) -> None:
    """Load the weights of the best epoch of a run, or what a codec learnt in it."""
    path = run.work / BEST
    if not path.is_file():
        raise FileNotFoundError(
            f"the {run.stage} of {run.results} is done, but its checkpoint {path} is missing: "
            f"restore it, or delete the folder {run.results} to train again"
        )
    module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["state_dict"])


def set_checkpoints_aside(work: Path) -> None:
    """Start without the checkpoints of a failed run; they stay on disk as `failed_*.ckpt`."""
    for name in (BEST, LAST):
        if (work / name).is_file():
            (work / name).replace(work / f"failed_{name}")


def build_trainer(
    run: Run,
    monitor: str,
    logger: Logger | None,
    callbacks: list[Callback],
    overrides: Mapping[str, object],
) -> pl.Trainer:
    """A trainer that checkpoints every epoch into the run's folder."""
    cfg = run.cfg
    options = OmegaConf.to_container(cfg.trainer, resolve=True) | dict(overrides)
    device = pick_device(cfg)
    if options["precision"] == "auto":
        options["precision"] = "16-mixed" if device.type == "cuda" else "32-true"
    options["accelerator"] = "gpu" if device.type == "cuda" else "cpu"
    every = _evaluation_period(options["check_val_every_n_epoch"], options["max_epochs"])
    options["check_val_every_n_epoch"] = every
    if logger is not None:
        callbacks = [*callbacks, LearningRateMonitor(logging_interval="epoch")]
    return pl.Trainer(
        **options,
        devices=1,  # loaders and the contrastive loss know nothing of other processes
        logger=logger or False,
        callbacks=[ReseedEveryEpoch(cfg.seed), *callbacks, *_checkpoints(run, monitor, every)],
        default_root_dir=str(run.work),
        enable_progress_bar=any(isinstance(c, TQDMProgressBar) for c in callbacks),
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        enable_model_summary=False,
    )


def _evaluation_period(wanted: int, n_epochs: int) -> int:
    """At most `wanted` epochs, such that the last epoch is evaluated and kept as well."""
    return next(every for every in range(min(wanted, n_epochs), 0, -1) if n_epochs % every == 0)


def _checkpoints(run: Run, monitor: str, every: int) -> list[ModelCheckpoint]:
    """The best epoch, and the last one to resume from."""
    common = {
        "dirpath": run.work,
        "every_n_epochs": every,
        "save_on_train_epoch_end": True,
        "enable_version_counter": False,
    }
    best = ModelCheckpoint(filename=Path(BEST).stem, monitor=monitor, mode="min", **common)
    last = ModelCheckpoint(filename=Path(LAST).stem, **common)
    return [best, last]


def describe(cfg: DictConfig) -> str:
    """A job in a few words."""
    if not cfg.featurizer.is_learned:
        return f"{cfg.featurizer.name} {cfg.predictor.name}"
    beta = f"beta {cfg.featurizer.loss.beta:g}"
    label = "" if cfg.add_feat == "none" else f" {cfg.add_feat}"
    return (
        f"{cfg.data_feat.name} {cfg.distortion.name} {cfg.rate.name}{label} {beta} seed {cfg.seed}"
    )


def progress_callback(cfg: DictConfig, label: str) -> Callback:
    """A bar for a job that has the terminal to itself, else lines."""
    if cfg.parallel_jobs == 1 and sys.stderr.isatty():
        return TQDMProgressBar(refresh_rate=20)
    return ProgressLines(label)


def build_logger(run: Run) -> Logger | None:
    """The logger of a run, which gets the config and the run's folder."""
    logger = instantiate(run.cfg.logger.kwargs)
    if logger is None:
        return None
    logger = logger(run)
    logger.log_hyperparams(OmegaConf.to_container(run.cfg, resolve=True))
    return logger


def fit(
    module: pl.LightningModule,
    data: DataModule,
    run: Run,
    *,
    stage: str,
    monitor_split: str,
    callbacks: Sequence[Callback] = (),
    overrides: Mapping[str, object] | None = None,
) -> tuple[pl.Trainer, dict[str, float]]:
    """Train (or go on training) a module, then evaluate its best epoch on val and test.

    Parameters
    ----------
    stage : "feat" or "pred": the part of metric names.
    monitor_split : the split whose loss decides which epoch is the best.
    callbacks : besides those that every training has.
    overrides : of the trainer's options.
    """
    callbacks = [progress_callback(run.cfg, f"{describe(run.cfg)} {stage}"), *callbacks]
    monitor = f"{monitor_split}/{stage}/loss"
    trainer = build_trainer(run, monitor, build_logger(run), callbacks, overrides or {})
    last = run.work / LAST
    trainer.fit(module, datamodule=data, ckpt_path=str(last) if last.is_file() else None)
    load_best(module, run)
    return trainer, evaluate(trainer, module, data, run.cfg.seed)


def evaluate(
    trainer: pl.Trainer, module: pl.LightningModule, data: DataModule, seed: int
) -> dict[str, float]:
    """Metrics on the validation and on the test split."""
    metrics: dict[str, float] = {}
    for split, run_split in (("val", trainer.validate), ("test", trainer.test)):
        reseed(seed, "evaluate", split)
        (found,) = run_split(module, datamodule=data, verbose=False)
        metrics |= found
    return metrics
