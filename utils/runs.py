"""What a run is, where it lives, and how it stands.

A run is one stage under one config. Its identity is a hash of the resolved config without what
cannot change results (paths, hardware, logging), so the same experiment finds its own folder
again, and two that differ in anything never share one.
"""

import contextlib
import csv
import hashlib
import json
import os
import platform
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

STAGES = ("featurizer", "communication", "predictor")

# Parts of the config that determine each stage, beside those of the stages before it. The
# `featurizer` node holds, through interpolations, all that the compressor is built from.
IDENTITY = {
    "featurizer": ("experiment_name", "seed", "data_feat", "featurizer", "add_feat"),
    "communication": ("data_pred", "communication"),
    "predictor": ("predictor", "optimizer_pred", "scheduler_pred", "checkpoint_pred", "add_pred"),
}
LEARNED_IDENTITY = {
    "featurizer": ("checkpoint_feat", "finetune", "trainer"),
    "communication": (),
    "predictor": ("trainer", "trainer_pred"),
}
# Keys that say where or how fast something runs, wherever they stand.
NOT_IDENTITY = {"accelerator", "devices", "precision", "log_every_n_steps", "data_dir", "deterministic"}


@dataclass(frozen=True)
class Run:
    """One stage under one config.

    Attributes
    ----------
    stage : name in `STAGES`.
    cfg : the resolved config of the whole job.
    results : folder of what people look at: CSV, config, status, figures.
    work : folder of what programs need: checkpoints and compressed data.
    """

    stage: str
    cfg: DictConfig
    results: Path
    work: Path

    @property
    def id(self) -> str:
        return self.results.name.removeprefix("run_")

    @property
    def csv(self) -> Path:
        return self.results / f"results_{self.stage}.csv"

    @property
    def status_file(self) -> Path:
        return self.results / "status.json"

    def status(self) -> dict:
        """What is known of the run; `{"state": "new"}` before it ever started.

        States: new, running (or killed while running), interrupted, failed, done.
        """
        if not self.status_file.is_file():
            return {"state": "new"}
        status = json.loads(self.status_file.read_text())
        if status["state"] == "done" and not self.csv.is_file():
            return {"state": "new"}
        return status

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Wait until no other process works on this run, then keep it to ourselves."""
        self.work.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.work / "run.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"Waiting for another process that works on the same {self.stage}: {self.results}")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def start(self) -> None:
        """Note that the run is under way, with its config."""
        self.results.mkdir(parents=True, exist_ok=True)
        write_text(self.results / "config.yaml", OmegaConf.to_yaml(self.cfg, sort_keys=True))
        self._write_status(state="running", started=_now(), pid=os.getpid(), host=platform.node())

    def finish(self, metrics: dict[str, float]) -> None:
        """Write the results; the run is done once they are on disk."""
        rows = [list(metrics), [repr(float(value)) for value in metrics.values()]]
        write_text(self.csv, "".join(",".join(row) + "\n" for row in rows))
        self._write_status(**self.status() | {"state": "done", "finished": _now()})

    def stop(self, error: BaseException) -> None:
        """Note why the run ended without results."""
        is_interrupt = isinstance(error, (KeyboardInterrupt, SystemExit))
        self._write_status(
            **self.status()
            | {
                "state": "interrupted" if is_interrupt else "failed",
                "finished": _now(),
                "error": f"{type(error).__name__}: {error}",
                "traceback": "".join(traceback.format_exception(error)),
            }
        )

    def metrics(self) -> dict[str, float]:
        """The results that are on disk."""
        with self.csv.open() as file:
            row = next(csv.DictReader(file))
        return {name: float(value) for name, value in row.items()}

    def _write_status(self, **status: object) -> None:
        write_text(self.status_file, json.dumps({"stage": self.stage} | status, indent=2) + "\n")


def find_run(cfg: DictConfig, stage: str) -> Run:
    """The run of a stage under `cfg`, whether it exists on disk or not."""
    folder = _folder(cfg, stage) / f"run_{run_hash(cfg, stage)}"
    return Run(stage, cfg, Path(cfg.paths.results) / folder, Path(cfg.paths.pretrained) / folder)


def identity(cfg: DictConfig, stage: str) -> dict:
    """The part of the resolved config that determines the results of a stage."""
    config = OmegaConf.to_container(cfg, resolve=True)
    keys: list[str] = []
    for name in STAGES[: STAGES.index(stage) + 1]:
        keys += IDENTITY[name]
        if cfg.featurizer.is_learned or name == "predictor":
            keys += LEARNED_IDENTITY[name]
    return _without({key: config[key] for key in keys}, NOT_IDENTITY)


def run_hash(cfg: DictConfig, stage: str) -> str:
    """Ten hexadecimal digits of the identity."""
    text = json.dumps(identity(cfg, stage), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _without(node: object, keys: set[str]) -> object:
    if isinstance(node, dict):
        return {k: _without(v, keys) for k, v in node.items() if k not in keys}
    if isinstance(node, list):
        return [_without(v, keys) for v in node]
    return node


def _folder(cfg: DictConfig, stage: str) -> Path:
    """The readable part of a run's path, relative to the root of the results."""
    is_learned = cfg.featurizer.is_learned

    def learned(value: object) -> object:
        return value if is_learned else "none"

    beta = cfg.featurizer.loss.beta
    parts = [
        f"exp_{cfg.experiment_name}",
        f"datafeat_{cfg.data_feat.name}",
        f"feat_{cfg.featurizer.name}",
        f"dist_{learned(cfg.distortion.name)}",
        f"enc_{learned(cfg.encoder.name)}",
        f"rate_{learned(cfg.rate.name)}",
        f"optfeat_{learned(cfg.optimizer_feat.name)}",
        f"schedfeat_{learned(cfg.scheduler_feat.name)}",
        f"zdim_{learned(cfg.encoder.z_dim)}",
        "zs_1",
        f"beta_{'none' if beta is None else format(float(beta), '.1e')}",
        f"seed_{cfg.seed}",
        f"addfeat_{cfg.add_feat}",
    ]
    if stage != "featurizer":
        parts.append(f"datapred_{cfg.data_pred.name}")
    if stage == "predictor":
        parts += [
            f"optpred_{cfg.optimizer_pred.name}",
            f"schedpred_{cfg.scheduler_pred.name}",
            f"addpred_{cfg.add_pred}",
        ]
    return Path(*parts)


def write_text(path: Path, text: str) -> None:
    """Write a file that is either complete or not there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
