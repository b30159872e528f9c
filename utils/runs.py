"""What a run is, where it lives, and how it stands.

A run is one stage under one config. Its identity is a hash of the resolved config without what
cannot change results (paths, hardware, logging), so the same experiment finds its own folder
again, and two that differ in anything never share one.
"""

import contextlib
import csv
import functools
import hashlib
import json
import os
import platform
import subprocess
import tempfile
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
# Settings that say where a run takes place or what it logs, not what it computes.
NOT_IDENTITY = (
    ("trainer", "accelerator"),
    ("trainer", "log_every_n_steps"),
    ("data_feat", "kwargs", "n_workers"),
    ("data_pred", "kwargs", "n_workers"),
    # paths of weights, for whose content `weights_id` stands
    ("data_feat", "kwargs", "clip_weights"),
    ("data_pred", "kwargs", "clip_weights"),
    ("tower", "kwargs", "weights"),
    ("tower", "batch_size"),
)
# Settings that do not change which examples a data set holds, or how they come out of its images.
NOT_CONTENT = ("batch_size", "eval_batch_size", "n_workers", "clip_weights")
# Those that change only splits that are augmented.
AUGMENTATION = ("equivalence", "val_equivalence", "p_augment", "is_augment_val")
# Facts of a data set that its images do not depend on.
NOT_OF_IMAGES = ("name", "length", "mean", "std", "kwargs")


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
            print(
                f"Waiting for another process that works on the same {self.stage}: {self.results}"
            )
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def start(self, upstream: str | None) -> None:
        """Note that the run is under way, its config, and which results it starts from.

        Parameters
        ----------
        upstream : what tells one making of its inputs from another: when the stage before it was
            finished, or the digest of the encoder that it starts from; None if there is neither.
        """
        self.results.mkdir(parents=True, exist_ok=True)
        write_text(self.results / "config.yaml", OmegaConf.to_yaml(self.cfg, sort_keys=True))
        self._write_status(
            state="running",
            started=_now(),
            upstream=upstream,
            pid=os.getpid(),
            host=platform.node(),
            code=code_version(),
        )

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


def identity(config: DictConfig | dict, stage: str) -> dict:
    """The part of a resolved config that determines the results of a stage."""
    if OmegaConf.is_config(config):
        config = OmegaConf.to_container(config, resolve=True)
    keys: list[str] = []
    for name in STAGES[: STAGES.index(stage) + 1]:
        keys += IDENTITY[name]
        if config["featurizer"]["is_learned"] or name == "predictor":
            keys += LEARNED_IDENTITY[name]
    if has_tower(config):
        keys.append("tower")
    return {key: _without(config[key], (key,)) for key in keys}


def has_tower(config: DictConfig | dict) -> bool:
    """Whether a frozen tower stands between the data and the compressor."""
    return "tower" in config and config["tower"]["name"] != "none"


def feature_identity(cfg: DictConfig, place: str) -> tuple[dict, dict]:
    """The parts of a resolved config that determine the features of the data set at a place.

    The second one, of augmentations, matters only for splits that are augmented.
    """
    tower = _without(OmegaConf.to_container(cfg.tower, resolve=True), ("tower",))
    tower = {k: value for k, value in tower.items() if k not in ("name", "n_copies")}
    data = OmegaConf.to_container(cfg[place], resolve=True)
    kwargs = {k: value for k, value in data["kwargs"].items() if k not in NOT_CONTENT}
    augmentation = {k: kwargs.pop(k) for k in AUGMENTATION if k in kwargs}
    facts = {k: value for k, value in data.items() if k not in NOT_OF_IMAGES}
    return {"tower": tower, "data": facts | {"kwargs": kwargs}}, augmentation


def run_hash(config: DictConfig | dict, stage: str) -> str:
    """Ten hexadecimal digits of the identity."""
    return digest(identity(config, stage))


def digest(identity: dict) -> str:
    """Ten hexadecimal digits that stand for an identity."""
    text = json.dumps(identity, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _without(node: object, path: tuple[str, ...]) -> object:
    """The node at `path` of the config, less what is no part of the identity."""
    if not isinstance(node, dict):
        return node
    items = {key: (value, (*path, key)) for key, value in node.items()}
    return {k: _without(v, where) for k, (v, where) in items.items() if where not in NOT_IDENTITY}


@functools.cache
def code_version() -> str | None:
    """Commit of this code, with "-dirty" if it was changed since; None outside of git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def path_parts(config: DictConfig | dict, stage: str) -> dict[str, str]:
    """What the folder names of a run show: {"datafeat": "banana_rot", "feat": ..., ...}."""
    is_learned = config["featurizer"]["is_learned"]
    beta = config["featurizer"]["loss"]["beta"]
    learned = {
        "dist": config["distortion"]["name"],
        "enc": config["encoder"]["name"],
        "rate": config["rate"]["name"],
        "optfeat": config["optimizer_feat"]["name"],
        "schedfeat": config["scheduler_feat"]["name"],
        "zdim": config["encoder"]["z_dim"],
        "zs": 1,
        "beta": None if beta is None else f"{float(beta):.1e}",
    }
    parts = {"datafeat": config["data_feat"]["name"], "feat": config["featurizer"]["name"]}
    parts |= learned if is_learned else dict.fromkeys(learned, "none") | {"zs": 1}
    if has_tower(config):
        parts |= {"enc": config["tower"]["name"], "zdim": config["encoder"]["z_dim"]}
    parts |= {"seed": config["seed"], "addfeat": config["add_feat"]}
    if stage != "featurizer":
        parts["datapred"] = config["data_pred"]["name"]
    if stage == "predictor":
        parts["optpred"] = config["optimizer_pred"]["name"]
        parts["schedpred"] = config["scheduler_pred"]["name"]
        parts["addpred"] = config["add_pred"]
    return {name: str(value) for name, value in parts.items()}


def experiment_folder(config: DictConfig | dict) -> str:
    """Name of the folder of an experiment."""
    return f"exp_{config['experiment_name']}"


def _folder(cfg: DictConfig, stage: str) -> Path:
    """A run's path without its hash, relative to the root of the results."""
    parts = [f"{name}_{value}" for name, value in path_parts(cfg, stage).items()]
    return Path(experiment_folder(cfg), *parts)


def writable_dir(path: str | Path, setting: str = "paths.data") -> Path:
    """Make the folder of a setting if it is missing and check that files can be written to it.

    Raises
    ------
    OSError
        If it cannot be made or written to.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OSError(
            f"{setting}={str(path)!r} must be a folder that can be written to: {error}. Give "
            "another one or change its permissions."
        ) from error
    return path


def write_text(path: Path, text: str) -> None:
    """Write a file that is either complete or not there."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that is either complete or not there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
