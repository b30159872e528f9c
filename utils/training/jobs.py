"""What surrounds the stages of one job: set-up, the scheduler's signals, its trace, its result."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

import torch
from omegaconf import DictConfig, OmegaConf

from utils.cluster.sweep import MAIN_PROCESS, ConfigError, check_epochs, cpus_per_job
from utils.configs.architectures import check_architectures
from utils.data.module import check_choice
from utils.runs import scheduler, signals
from utils.runs.files import writable_dir
from utils.runs.identity import STAGES
from utils.runs.job_status import own_trace
from utils.runs.run import find_run
from utils.training import building, fitting

WATCH_SECONDS = 1.0  # between two looks at whether the main process is still there


class UnknownMetricError(ConfigError):
    """`monitor_return` names a metric that no stage has; it ends a search."""


@contextlib.contextmanager
def prepared(cfg: DictConfig) -> Iterator[DictConfig]:
    """The resolved config, with the process set up for it; notes how the job ends."""
    trace = own_trace()
    with signals.handled(), trace.kept():
        cfg = cfg.copy()
        OmegaConf.resolve(cfg)
        check_choice("on_failed", cfg.on_failed, ("restart", "resume"))
        check_architectures(cfg)
        check_epochs(cfg)
        for name in ("results", "pretrained"):  # data may lie where nobody can write
            writable_dir(cfg.paths[name], f"paths.{name}")
        _end_with_main_process()
        fitting.quiet()
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(cpus_per_job(cfg.parallel_jobs))
        if building.pick_device(cfg).type == "cpu":
            # Adam asks for CUDA at every step; by way of NVML, as Lightning sets it, that is slow
            os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
        stages = STAGES[: 1 if cfg.is_only_feat else None]
        trace.note(runs={stage: str(find_run(cfg, stage).results) for stage in stages})
        yield cfg


def finished(cfg: DictConfig, metrics: dict[str, float]) -> float | tuple[float, ...] | None:
    """The metric(s) that a hyper-parameter search asked for.

    Raises `UnknownMetricError` naming the metrics there are if one of them is unknown.
    """
    if cfg.monitor_return is None:
        return None
    names = [cfg.monitor_return] if isinstance(cfg.monitor_return, str) else cfg.monitor_return
    if unknown := [name for name in names if name not in metrics]:
        raise UnknownMetricError(
            f"monitor_return: there is no metric {unknown}; there are {sorted(metrics)}"
        )
    values = tuple(metrics[name] for name in names)
    return values[0] if len(values) == 1 else values


def _end_with_main_process() -> None:
    """Let a worker process of a sweep end when the process that started it is gone.

    Whoever kills `main.py` means its jobs too; left alone, they would go on in the background.
    """
    main_process = int(os.environ.get(MAIN_PROCESS, 0))
    is_ours = scheduler.job_id() is None  # a scheduler's jobs outlive who queued them
    if is_ours and os.getppid() == main_process:  # otherwise this is no worker
        threading.Thread(target=_watch, args=(main_process,), daemon=True).start()


def _watch(main_process: int) -> None:
    while os.getppid() == main_process:
        time.sleep(WATCH_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)  # as the main process: resumes from the last checkpoint
