"""Fit modules and codecs, evaluate the best epoch, and measure inference time."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from itertools import islice

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback, LearningRateMonitor
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from pytorch_lightning.plugins.layer_sync import TorchSyncBatchNorm
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor

from lossyless.base import PlainCompressor
from utils.data.module import DataModule
from utils.runs.run import BEST, Run, write_checkpoint
from utils.runs.stopwatch import Stopwatch
from utils.training import distributed
from utils.training.building import pick_device
from utils.training.callbacks import (
    CompileLosses,
    KeepSignals,
    NoteEpoch,
    ProgressLines,
    ReseedEveryEpoch,
    reseed,
)
from utils.training.checkpoints import TimedCheckpoints, checkpoint_callbacks
from utils.training.loggers import build_logger

N_TIMED = 3  # batches used to measure inference time
MAX_FITTED = 2**16  # examples used to estimate a codec's statistics, such as a covariance


def quiet() -> None:
    """Silence log messages and warnings that are irrelevant to users."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # loaders make batches on the device
        ".*exists and is not empty.*",  # the folder of a resumed run
        ".*isinstance\\(treespec.*",
        ".*smaller than the logging interval.*",
        ".*The `srun` command is available.*",  # processes are declared in `_processes`
        ".*recommended to use `self.log.*sync_dist=True.*",  # all processes evaluate all examples
    ):
        warnings.filterwarnings("ignore", message)


def describe(cfg: DictConfig) -> str:
    """Return a one-line description of a job."""
    if not cfg.featurizer.is_learned:
        return f"{cfg.featurizer.name} {cfg.predictor.name}"
    beta = f"beta {cfg.featurizer.loss.beta:g}"
    label = "" if cfg.add_feat == "none" else f" {cfg.add_feat}"
    return (
        f"{cfg.data_feat.name} {cfg.distortion.name} {cfg.rate.name}{label} {beta} seed {cfg.seed}"
    )


def fit_codec(codec: PlainCompressor, data: DataModule, run: Run, device: torch.device) -> None:
    """Fit a codec to training examples and save its state for the later stages."""
    codec.fit(_training_examples(data, device))
    write_checkpoint({"state_dict": codec.state_dict()}, run.work / BEST)


def _training_examples(data: DataModule, device: torch.device) -> Tensor:
    """At most `MAX_FITTED` training examples [N, *shape], in random order."""
    found: list[Tensor] = []
    for batch in data.loader("train", device=device):
        found.append(batch.x)
        if sum(map(len, found)) >= MAX_FITTED:
            break
    return torch.cat(found)[:MAX_FITTED]


def build_trainer(
    run: Run,
    monitor: str,
    logger: Logger | None,
    callbacks: list[Callback],
    overrides: Mapping[str, object],
) -> pl.Trainer:
    """Build a trainer that saves checkpoints of evaluated epochs in the run's work folder."""
    cfg = run.cfg
    options = OmegaConf.to_container(cfg.trainer, resolve=True) | dict(overrides)
    device = pick_device(cfg)
    options["accelerator"] = "gpu" if device.type == "cuda" else "cpu"
    every = _evaluation_period(options["check_val_every_n_epoch"], options["max_epochs"])
    options["check_val_every_n_epoch"] = every
    checkpoints = TimedCheckpoints(cfg.checkpoint.every_minutes)
    own = [ReseedEveryEpoch(run.seed), KeepSignals(), NoteEpoch(run)]
    if options.pop("compile"):
        own.append(CompileLosses())
    if logger is not None:
        callbacks = [*callbacks, LearningRateMonitor(logging_interval="epoch")]
    return pl.Trainer(
        **options | _processes(cfg, device, checkpoints),
        logger=logger or False,
        callbacks=[*own, *callbacks, *checkpoint_callbacks(run, monitor, every, checkpoints)],
        default_root_dir=str(run.work),
        enable_progress_bar=False,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        enable_model_summary=False,
    )


def _processes(
    cfg: DictConfig, device: torch.device, checkpoints: TimedCheckpoints
) -> dict[str, object]:
    """Trainer options that declare the processes of a job, including the plugin for checkpoints.

    Without these options, Lightning would take over all tasks of a Slurm job.
    """
    if distributed.world_size() == 1:
        plugins = [LightningEnvironment(), checkpoints]
        return {"devices": 1, "num_nodes": 1, "plugins": plugins}
    rate = cfg.rate.kwargs
    has_idle_parameters = rate.warmup_k_epoch > 0 or not rate.is_end_to_end
    return {
        "strategy": DDPStrategy(find_unused_parameters=has_idle_parameters),
        "plugins": [
            TorchElasticEnvironment(),
            checkpoints,
            TorchSyncBatchNorm() if device.type == "cuda" else distributed.GatheredBatchNorm(),
        ],
        "use_distributed_sampler": False,  # our loaders already split batches across processes
    }


def _evaluation_period(wanted: int, n_epochs: int) -> int:
    """Largest divisor of `n_epochs` up to `wanted`, so that the last epoch is evaluated."""
    return next(every for every in range(min(wanted, n_epochs), 0, -1) if n_epochs % every == 0)


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
    """Train a module or resume its training, then evaluate the checkpoint of its best epoch.

    The training split is evaluated only if the config sets `is_eval_train`.

    Parameters
    ----------
    stage : "feat" or "pred", as in metric names.
    monitor_split : split whose loss selects the best epoch.
    callbacks : additional callbacks.
    overrides : trainer options that replace those in the config.
    """
    if distributed.is_main():
        callbacks = [ProgressLines(run.stage), *callbacks]
    monitor = f"{monitor_split}/{stage}/loss"
    logger = build_logger(run) if distributed.is_main() else None
    trainer = build_trainer(run, monitor, logger, callbacks, overrides or {})
    checkpoint = distributed.from_main(run.checkpoint_to_resume)
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    if not trainer.checkpoint_callback.best_model_path:
        raise ValueError("training ended before the first evaluation: allow more steps or time")
    run.load_best(module)
    splits = ("val", "test", "train") if run.cfg.is_eval_train else ("val", "test")
    return trainer, evaluate(trainer, module, data, run.seed, splits)


def evaluate(
    trainer: pl.Trainer,
    module: pl.LightningModule,
    data: DataModule,
    seed: int,
    splits: Sequence[str] = ("val", "test"),
) -> dict[str, float]:
    """Return metrics `<split>/<stage>/<name>`; those of "train" use its first augmented copy."""
    metrics: dict[str, float] = {}
    for split in splits:
        reseed(seed, "evaluate", split)
        evaluate_split = trainer.validate if split == "val" else trainer.test
        loader = data.loader(split, device=trainer.strategy.root_device, shuffle=False)
        (found,) = evaluate_split(module, dataloaders=loader, verbose=False)
        metrics |= {f"{split}/{name.partition('/')[2]}": value for name, value in found.items()}
    return metrics


def inference_time(
    trainer: pl.Trainer, module: pl.LightningModule, data: DataModule, split: str
) -> float:
    """Measure a trained network's inference time, in seconds per example, on a few batches."""
    device = trainer.strategy.root_device
    loader, watch, n_examples = data.loader(split, device=device), Stopwatch(device), 0
    module.to(device).eval()
    with torch.inference_mode(), trainer.precision_plugin.forward_context():
        module(next(iter(loader)).x)  # warm-up: the first call is slower
        for batch in islice(loader, N_TIMED):
            with watch:
                module(batch.x)
            n_examples += len(batch.x)
    return watch.seconds / n_examples
