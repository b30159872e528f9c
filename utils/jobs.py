"""What surrounds the stages of one job: set-up, its trace in the sweep's folder, its result.

Every job of a sweep writes `job.json` into its Hydra output folder. `utils.report` reads them when
the sweep has ended, so that a failed or lost job is named whatever launched it.
"""

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from utils import training
from utils.config import MAIN_PROCESS, cpus_per_job
from utils.data.base import check_choice
from utils.runs import STAGES, find_run, writable_dir, write_text

WATCH_SECONDS = 1.0  # between two looks at whether the main process is still there


@contextlib.contextmanager
def prepared(cfg: DictConfig) -> Iterator[DictConfig]:
    """The resolved config, with the process set up for it; notes how the job ends."""
    trace = _Trace(cfg)
    try:
        cfg = cfg.copy()
        OmegaConf.resolve(cfg)
        check_choice("on_failed", cfg.on_failed, ("restart", "resume"))
        for name in ("results", "pretrained"):  # data may lie where nobody can write
            writable_dir(cfg.paths[name], f"paths.{name}")
        _end_with_main_process()
        training.quiet()
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(cpus_per_job(cfg.parallel_jobs))
        if training.pick_device(cfg).type == "cpu":
            # Adam asks for CUDA at every step; by way of NVML, as Lightning sets it, that is slow
            os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
        trace.write("running", results=str(find_run(cfg, STAGES[0]).results))
        yield cfg
    except BaseException as error:
        is_interrupt = isinstance(error, (KeyboardInterrupt, SystemExit))
        state = "interrupted" if is_interrupt else "failed"
        trace.write(state, error=f"{type(error).__name__}: {error}")
        raise
    trace.write("done")


def finished(cfg: DictConfig, metrics: dict[str, float]) -> float | tuple[float, ...] | None:
    """The metric(s) that a hyper-parameter search asked for.

    Raises `ValueError` naming the metrics there are if one of them is unknown.
    """
    if cfg.monitor_return is None:
        return None
    names = [cfg.monitor_return] if isinstance(cfg.monitor_return, str) else cfg.monitor_return
    if unknown := [name for name in names if name not in metrics]:
        raise ValueError(
            f"monitor_return: there is no metric {unknown}; there are {sorted(metrics)}"
        )
    values = tuple(metrics[name] for name in names)
    return values[0] if len(values) == 1 else values


def _end_with_main_process() -> None:
    """Let a worker process of a sweep end when the process that started it is gone.

    Whoever kills `main.py` means its jobs too; left alone, they would go on in the background.
    """
    main_process = int(os.environ.get(MAIN_PROCESS, 0))
    if os.getppid() == main_process:  # otherwise this is no worker
        threading.Thread(target=_watch, args=(main_process,), daemon=True).start()


def _watch(main_process: int) -> None:
    while os.getppid() == main_process:
        time.sleep(WATCH_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)  # as the main process: resumes from the last checkpoint


class _Trace:
    """The file in which a job says how it stands; nothing outside a Hydra job."""

    def __init__(self, cfg: DictConfig):
        self._file: Path | None = None
        self._content: dict[str, object] = {}
        if not HydraConfig.initialized():
            return
        hydra_cfg = HydraConfig.get()
        if not OmegaConf.is_missing(hydra_cfg.runtime, "output_dir"):
            self._file = Path(hydra_cfg.runtime.output_dir) / "job.json"
            self._content = {
                "num": hydra_cfg.job.get("num", 0),
                "overrides": list(hydra_cfg.overrides.task),
                "started": time.time(),
            }

    def write(self, state: str, **more: object) -> None:
        if self._file is not None:
            self._content |= {"state": state, "seconds": self._seconds(), **more}
            write_text(self._file, json.dumps(self._content, indent=2) + "\n")

    def _seconds(self) -> float:
        return round(time.time() - float(self._content["started"]), 1)
