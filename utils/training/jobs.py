"""Setup of a job (signals, status file, threads) and its return value."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

import torch
from omegaconf import DictConfig, OmegaConf

from utils.configs.checks import (
    ConfigError,
    check_compilation,
    check_settings,
    expand_paths,
    list_texts,
)
from utils.configs.resolvers import cpus_per_job
from utils.evaluation.linear import find_evaluation
from utils.runs import signals
from utils.runs.files import writable_dir
from utils.runs.identity import STAGES
from utils.runs.run import find_run
from utils.runs.signals import MAIN_PROCESS
from utils.runs.status_file import recorded_job
from utils.training import building, fitting

WATCH_SECONDS = 1.0  # interval between checks that the main process is alive


class UnknownMetricError(ConfigError):
    """`monitor_return` names a metric that no stage computes; this error ends a search."""


@contextlib.contextmanager
def prepared(cfg: DictConfig) -> Iterator[DictConfig]:
    """Set up the process for a job, yield the resolved config, and record how the job ends."""
    with _following_main_process(), signals.handled(), recorded_job() as job:
        cfg = cfg.copy()
        expand_paths(cfg)
        list_texts(cfg)
        OmegaConf.resolve(cfg)
        check_settings(cfg)
        find_evaluation(cfg)  # raises ConfigError if the predictor is invalid
        check_compilation(cfg)
        for name in ("results", "pretrained"):  # the data folder may be read-only
            writable_dir(cfg.paths[name], f"paths.{name}")
        fitting.quiet()
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(cpus_per_job(cfg.parallel_jobs))
        if building.pick_device(cfg).type == "cpu":
            # Adam checks for CUDA at every step, which is slow through NVML, Lightning's default
            os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
        else:  # "high": TF32; compiled code cannot make an exception for rates
            torch.set_float32_matmul_precision("highest" if cfg.trainer.compile else "high")
        stages = STAGES[: 1 if cfg.is_only_feat else None]
        if job is not None:
            job.note(runs={stage: str(find_run(cfg, stage).results) for stage in stages})
        yield cfg


def finished(cfg: DictConfig, metrics: dict[str, float]) -> float | tuple[float, ...] | None:
    """Metric(s) that `cfg.monitor_return` names, for a hyperparameter search; None if it is null.

    Raises `UnknownMetricError`, which lists the known metrics, if a name is not among them.
    """
    if cfg.monitor_return is None:
        return None
    names = [cfg.monitor_return] if isinstance(cfg.monitor_return, str) else cfg.monitor_return
    if unknown := [name for name in names if name not in metrics]:
        raise UnknownMetricError(
            f"monitor_return: unknown metric {unknown}; choose from {sorted(metrics)}"
        )
    values = tuple(metrics[name] for name in names)
    return values[0] if len(values) == 1 else values


@contextlib.contextmanager
def _following_main_process() -> Iterator[None]:
    """In a worker process of a sweep, interrupt the job if the main process requests it or is gone.

    Without this, the workers of a killed `main.py` would continue in the background.
    """
    main_process = int(os.environ.get(MAIN_PROCESS, 0))
    # a scheduler's jobs outlive main.py
    if main_process in (0, os.getpid()) or signals.job_id() is not None:
        yield
        return
    over = threading.Event()
    threading.Thread(target=_watch, args=(main_process, over), daemon=True).start()
    try:
        with signals.raised_once():
            yield
    finally:
        over.set()


def _watch(main_process: int, over: threading.Event) -> None:
    while os.getppid() == main_process:
        if over.wait(WATCH_SECONDS):
            return
    os.kill(os.getpid(), signal.SIGTERM)
    over.wait(signals.GRACE_SECONDS)
    os._exit(1)
