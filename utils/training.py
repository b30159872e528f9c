"""Building models, data and trainers from a config; fitting and evaluating them."""

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

from lossyless.classical import ImageCodec
from lossyless.compressors import LearnableCompressor
from lossyless.optim import PartOptimizer
from lossyless.predictors import PredictionHead, Predictor
from utils.callbacks import ProgressLines, ReseedEveryEpoch, reseed
from utils.data.base import DataModule
from utils.runs import Run, find_run

BEST, LAST = "best.ckpt", "last.ckpt"
# Facts of a data set that its config states, so that models can be built from the config alone.
DATA_FACTS = ("shape", "kind", "task", "n_outputs")


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
    """The data set at `place` ("data_feat" or "data_pred")."""
    data = instantiate(
        cfg[place].kwargs, auxiliary=auxiliary, seed=cfg.seed, data_dir=cfg.paths.data
    )
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


def build_compressor(cfg: DictConfig) -> LearnableCompressor | ImageCodec:
    """The compressor of a config, with weights that depend on the seed only."""
    reseed(cfg.seed, "weights")
    return instantiate(cfg.featurizer.kwargs)


def load_compressor(cfg: DictConfig) -> LearnableCompressor | ImageCodec:
    """The trained compressor of a config, in evaluation mode, on its device."""
    compressor = build_compressor(cfg)
    if cfg.featurizer.is_learned:
        run = find_run(cfg, "featurizer")
        load_best(compressor, run)
    return compressor.eval().requires_grad_(False).to(pick_device(cfg))


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


def build_predictor(
    cfg: DictConfig, in_shape: Sequence[int], compressor: LearnableCompressor | ImageCodec
) -> Predictor:
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


def load_predictor(cfg: DictConfig, compressor: LearnableCompressor | ImageCodec) -> Predictor:
    """The trained predictor of a config, in evaluation mode, on its device."""
    in_shape = cfg.data_pred.shape if compressor.is_reconstruct else [cfg.encoder.z_dim]
    predictor = build_predictor(cfg, in_shape, compressor)
    load_best(predictor, find_run(cfg, "predictor"))
    return predictor.eval().requires_grad_(False).to(pick_device(cfg))


def load_best(module: pl.LightningModule, run: Run) -> None:
    """Load the weights of the best epoch of a run."""
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
