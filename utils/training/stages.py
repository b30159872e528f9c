"""The three stages of a job, and when they are skipped, resumed or restarted.

done         -> results are read from disk
interrupted  -> resumed from the last checkpoint (Ctrl-C, kill, time-out, full disk)
failed       -> restarted, or resumed with `on_failed=resume`

In distributed jobs, only the main process takes the lock, makes decisions and writes results.
"""

import contextlib
from collections.abc import Callable
from functools import partial

import torch
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from lossyless.base import Compressor
from lossyless.compressors import LearnableCompressor
from utils.configs.resolvers import cpus_per_job
from utils.data.decoded import DecodedDataModule
from utils.data.module import SPLITS
from utils.evaluation import communication, quality
from utils.evaluation.linear import Evaluation, find_evaluation
from utils.plots.figures import find_figure
from utils.runs.identity import STAGES
from utils.runs.provenance import code_version
from utils.runs.run import Run, find_run
from utils.training import building, distributed, encoder_checkpoint, figures, fitting, loggers
from utils.training.callbacks import Freezer, reseed

Metrics = dict[str, float]


def run_stage(
    cfg: DictConfig, stage: str, compute: Callable[[Run], Metrics], *, is_shared: bool = False
) -> Metrics:
    """Return a stage's metrics: read them from disk if it is done; else compute and write them.

    Parameters
    ----------
    compute : function that returns the metrics; it may resume from a checkpoint in `run.work`.
    is_shared : whether all processes of the job call `compute`, or only the main one. The metrics
        are those of the main process.
    """
    run = find_run(cfg, stage)
    with run.locked() if distributed.is_main() else contextlib.nullcontext():
        metrics = distributed.from_main(lambda: _reuse_or_start(run))
        if metrics is not None:
            return metrics
        try:
            with run.status_file.recording(), distributed.peer_errors():
                is_taking_part = is_shared or distributed.is_main()
                metrics = distributed.broadcast(compute(run) if is_taking_part else {})
                if distributed.is_main():
                    loggers.log_results(run, metrics)
                    run.finish(metrics)
        finally:
            loggers.close()
        return metrics


def _reuse_or_start(run: Run) -> Metrics | None:
    """Return the metrics of a finished run; else mark the run as started and return None."""
    status, upstream = run.status(), _upstream(run.cfg, run.stage)
    state = status["state"]
    if state != "new" and status.get("upstream") != upstream:
        print(f"[{run.stage}] restarting: its upstream stage or encoder changed: {run.results}")
        run.set_checkpoints_aside()
    elif state == "done":
        what, code = fitting.describe(run.cfg), status.get("code") or ""
        is_same = code in ("", code_version()) and not code.endswith("-dirty")
        by = "" if is_same else f" (from code {code})"
        print(f"[{run.stage}] run_{run.id} is done; its results are reused{by}: {what}")
        return run.metrics()
    elif state == "failed" and run.cfg.on_failed == "restart":
        print(f"[{run.stage}] previously failed; restarting: {run.results}")
        run.set_checkpoints_aside()
    elif state == "new":
        run.set_checkpoints_aside()  # the results may have been deleted
    else:
        print(f"[{run.stage}] previously {state}; resuming: {run.results}")
    run.start(upstream)
    return None


def _upstream(cfg: DictConfig, stage: str) -> str | None:
    """Time when the previous stage finished; for stage 1, digest of the imported encoder."""
    if stage == STAGES[0]:
        return encoder_checkpoint.imported_digest(cfg)
    before = STAGES[STAGES.index(stage) - 1]
    return find_run(cfg, before).status().get("finished")


def featurizer(cfg: DictConfig) -> Metrics:
    """Stage 1: fit a compressor; evaluate its rate, distortion and online probe; draw figures."""
    if not cfg.featurizer.is_learned:
        return run_stage(cfg, "featurizer", _evaluate_codec)
    # checked before training starts
    export_path = encoder_checkpoint.encoder_path(cfg, encoder_checkpoint.EXPORT)
    metrics = run_stage(cfg, "featurizer", _fit, is_shared=True)
    if not distributed.is_main():
        return metrics
    if export_path is not None:
        encoder_checkpoint.export_encoder(cfg, export_path)
    run = find_run(cfg, "featurizer")
    if missing := figures.missing(cfg.figures.names, run):  # requested after training
        compressor = building.load_compressor(cfg)
        data = building.build_data(cfg, "data_feat", compressor.distortion.needs)
        figures.draw_all(missing, compressor, data, run, logger=None)
    return metrics


def communicate(cfg: DictConfig) -> Metrics:
    """Stage 2: compress the predictor's data set to files; measure bits and times."""
    return run_stage(cfg, "communication", _communicate)


def predict(cfg: DictConfig) -> Metrics:
    """Stage 3: train a downstream model on the decoded data."""
    return run_stage(cfg, "predictor", _predict, is_shared=True)


def _fit(run: Run) -> Metrics:
    cfg = run.cfg
    compressor = building.build_compressor(cfg)
    encoder_checkpoint.import_encoder(compressor.p_ZlX, cfg)
    data = building.build_data(cfg, "data_feat", compressor.distortion.needs)
    building.check_targets(compressor, data, cfg.data_feat.name)
    for name in cfg.figures.names:  # checked before training starts
        find_figure(name, compressor, data)
    callbacks: list[Callback] = [Freezer(list(cfg.finetune.frozen))]
    if cfg.figures.every_n_epochs and distributed.is_main():
        callbacks.append(
            figures.DrawWhileTraining(cfg.figures.names, cfg.figures.every_n_epochs, data, run)
        )
    trainer, metrics = fitting.fit(
        compressor,
        data,
        run,
        stage="feat",
        monitor_split=cfg.checkpoint_feat.split,
        callbacks=callbacks,
    )
    if distributed.is_main():
        figures.draw_all(cfg.figures.names, compressor, data, run, trainer.logger)
    return metrics


def _evaluate_codec(run: Run) -> Metrics:
    """Evaluate a codec; if it has a state, fit it first."""
    codec = building.build_compressor(run.cfg)
    data = building.build_data(run.cfg, "data_feat", "none")
    device = building.pick_device(run.cfg)
    if codec.state_dict():
        fitting.fit_codec(codec, data, run, device)
    metrics: Metrics = {}
    for split in ("val", "test"):
        metrics |= quality.measure_codec(codec, data, split, device)
    return metrics


def _communicate(run: Run) -> Metrics:
    cfg = run.cfg
    compressor = building.load_compressor(cfg)
    data = building.build_data(cfg, "data_pred", "none")
    if not data.is_labelled:
        raise ValueError(f"data_pred={cfg.data_pred.name} has no labels to predict: choose another")
    device = building.pick_device(cfg)
    reseed(cfg.seed, "communicate")
    send = partial(
        communication.send_splits,
        compressor,
        device=device,
        n_copies=cfg.communication.n_copies,
        chunk_size=cfg.communication.chunk_size,
    )
    folder, measured = run.work, ("val", "test")
    sent = send(data, folder)
    if isinstance(compressor, LearnableCompressor):
        as_trained = data.with_auxiliary(compressor.distortion.needs)
        if as_trained.input_follows_auxiliary:  # predictors read other inputs
            data, folder = as_trained, run.work / "measured"
            sent = send(data, folder, splits=measured)
    metrics: Metrics = {}
    for split in measured:
        metrics |= communication.measure(
            compressor,
            data,
            split,
            sent=sent[split],
            path=communication.data_file(folder, split),
            device=device,
            n_single=cfg.communication.n_single,
        )
    return metrics


def _predict(run: Run) -> Metrics:
    evaluation = find_evaluation(run.cfg)
    return _train_predictor(run) if evaluation is None else _evaluate(evaluation, run)


def _evaluate(evaluation: Evaluation, run: Run) -> Metrics:
    if not distributed.is_main():
        return {}
    cfg = run.cfg
    compressor = building.load_compressor(cfg)
    return evaluation.evaluate(
        _decoded_splits(compressor, cfg, _received_kind(compressor, cfg)),
        task=cfg.data_pred.task,
        seed=run.seed,
        n_jobs=cpus_per_job(cfg.parallel_jobs),
    )


def _train_predictor(run: Run) -> Metrics:
    cfg = run.cfg
    compressor = building.load_compressor(cfg)
    kind = _received_kind(compressor, cfg)
    splits = _decoded_splits(compressor, cfg, kind)
    reseed(run.seed, "predictor")  # after building the compressor, which also uses the generators
    predictor = building.build_predictor(cfg, splits["train"][0].shape[1:], compressor)
    data = DecodedDataModule(
        splits,
        task=cfg.data_pred.task,
        n_outputs=cfg.data_pred.n_outputs,
        kind=kind,
        n_copies=cfg.communication.n_copies,
        batch_size=cfg.data_pred.kwargs.batch_size,
        eval_batch_size=cfg.data_pred.kwargs.eval_batch_size,
        seed=run.seed,
    )
    trainer, metrics = fitting.fit(
        predictor,
        data,
        run,
        stage="pred",
        monitor_split=cfg.checkpoint_pred.split,
        overrides=cfg.trainer_pred,
    )
    for split in ("val", "test"):
        seconds = fitting.inference_time(trainer, predictor, data, split)
        metrics[f"{split}/pred/inference_time"] = seconds
    return metrics


def _received_kind(compressor: Compressor, cfg: DictConfig) -> str:
    """Modality of the predictor's input; see `DataModule.kind`."""
    return cfg.data_pred.kind if compressor.is_reconstruct else "vector"


def _decoded_splits(
    compressor: Compressor, cfg: DictConfig, kind: str
) -> dict[str, tuple[Tensor, Tensor]]:
    """Decoded examples and targets of each split, from the communication stage's files."""
    received, work = find_run(cfg, "communication").work, find_run(cfg, "predictor").work
    device = building.pick_device(cfg)
    # each process has its own files
    process = "" if distributed.is_main() else f"_{distributed.rank()}"
    splits = {}
    for split in SPLITS:
        y = torch.from_numpy(communication.read_targets(received, split))
        file = communication.data_file(received, split)
        batches = communication.receive(compressor, file, device)
        temporary = work / f"decoded_{split}{process}"
        splits[split] = DecodedDataModule.collect(batches, len(y), temporary, kind=kind), y
    return splits
