"""Runs on disk: their states, saved configs and metrics.

The identity of a run is read from its saved config, never from the name of its folder.
"""

import functools
import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf

from utils.runs.files import read_csv
from utils.runs.identity import (
    STAGES,
    compressor_folder,
    digest,
    identity,
    path_parts,
    run_folder,
)
from utils.runs.status_file import RUN, RUN_LOCK, StatusFile

SEED = "seed"
SOURCES = "utils.data.sources"
# Names of modules and classes in configs saved by earlier versions -> their current names.
MOVED = {
    "utils.data.coco.CocoCaptionsDataModule": "utils.data.coco_captions.CocoCaptionsDataModule",
    "utils.data.coco.CocoDataModule": f"{SOURCES}.coco.coco",
    "utils.data.caltech101.Caltech101DataModule": f"{SOURCES}.photos.caltech101",
    "utils.data.cars196.Cars196DataModule": f"{SOURCES}.photos.cars196",
    "utils.data.cifar.CIFAR10DataModule": f"{SOURCES}.torchvision_sets.cifar10",
    "utils.data.cifar.CIFAR100DataModule": f"{SOURCES}.torchvision_sets.cifar100",
    "utils.data.digits.DigitsDataModule": f"{SOURCES}.digits.digits",
    "utils.data.food101.Food101DataModule": f"{SOURCES}.photos.food101",
    "utils.data.galaxy.GalaxyDataModule": f"{SOURCES}.galaxy.galaxy",
    "utils.data.galaxy.GalaxyOfflineDataModule": f"{SOURCES}.galaxy.galaxy_offline",
    "utils.data.imagenet.ImageNetDataModule": f"{SOURCES}.photos.imagenet",
    "utils.data.mnist.MNISTDataModule": f"{SOURCES}.torchvision_sets.mnist",
    "utils.data.pcam.PCamDataModule": f"{SOURCES}.pcam.pcam",
    "utils.data.pets37.Pets37DataModule": f"{SOURCES}.photos.pets37",
    "utils.data.stl10.STL10DataModule": f"{SOURCES}.torchvision_sets.stl10",
    "utils.data.stl10.STL10UnlabeledDataModule": f"{SOURCES}.torchvision_sets.stl10_unlabeled",
    **{
        f"lossyless.{module}.{name}Tower": f"lossyless.backbones.{name}Backbone"
        for module in ("towers", "backbones")
        for name in ("Clip", "OpenClip", "SimCLR", "SwAV", "Torchvision")
    },
    "utils.loggers": "utils.training.loggers",
    "utils.logistic_regression": "utils.evaluation.linear",
    "utils.svm.LinearEvaluation": "utils.evaluation.linear.LinearSVMEvaluation",
}
DONE, FAILED, MISSING = "done", "failed", "missing"
MAX_CONFIGS = 4096  # cached configs, about 50 kB each


class SavedConfig:
    """The resolved config that a run saved.

    All stages of a job save the same text, which is parsed only once; identities are cached.
    """

    def __init__(self, values: Mapping):
        self.values = values
        self._identities: dict[str, dict] = {}

    def id(self, stage: str) -> str:
        """Digest of the settings that determine a stage, as in the name of the run's folder."""
        return digest(self._identity(stage))

    def group(self, stage: str) -> str:
        """Digest of the settings that determine a stage, except `seed`."""
        return digest({key: value for key, value in self._identity(stage).items() if key != SEED})

    def settings(self, stage: str) -> dict[str, object]:
        """Settings that determine a stage, as {"a.b.c": value}."""
        return _flat(self._identity(stage))

    def path_parts(self, stage: str) -> dict[str, str]:
        """Settings that name the folders of a run."""
        return path_parts(self.values, stage)

    @functools.cached_property
    def flat(self) -> dict[str, object]:
        """All settings, as {"a.b.c": value}."""
        return _flat(self.values)

    def value(self, name: str) -> object:
        """The value of the setting "a.b.c"; None if it is not set."""
        return self.flat.get(name)

    def _identity(self, stage: str) -> dict:
        if stage not in self._identities:
            self._identities[stage] = identity(self.values, stage)
        return self._identities[stage]


@dataclass(frozen=True)
class Record:
    """A run on disk."""

    stage: str  # name in `STAGES`
    state: str  # from its status file, or `missing` if it is done but its results are missing
    folder: Path  # results folder
    config: SavedConfig  # config with which it was started
    metrics: Mapping[str, float] = field(default_factory=dict)  # empty unless it is done
    finished: str = ""  # when it ended, as text that sorts chronologically


def read_records(experiment: Path) -> tuple[list[Record], Counter]:
    """Read all runs of an experiment, whatever their state, and count the runs in each state.

    `experiment` is the folder `results/exp_<experiment>`. Compressors that its runs take from other
    experiments are included. Unreadable runs are counted, reported on stderr and left out.
    """
    folders = sorted(file.parent for file in experiment.glob(f"**/run_*/{RUN}"))
    states: Counter = Counter()
    records = _read_all(folders, experiment.parent, states)
    elsewhere = {_compressor_elsewhere(record.config, experiment) for record in records} - {None}
    return records + _read_all(sorted(elsewhere), experiment.parent, states), states


def read_config(folder: Path) -> SavedConfig:
    """Read the config that a run saved in its folder."""
    return _parse((folder / "config.yaml").read_text(encoding="utf-8"))


def upgrade(text: str) -> str:
    """Update renamed classes and modules in the text of a saved config to their current names."""

    def renamed(match: re.Match) -> str:
        target, module, name = match.groups()
        return f"_target_: {MOVED.get(target, f'{MOVED.get(module, module)}.{name}')}"

    return re.sub(r"_target_: (([\w.]+)\.(\w+))", renamed, text)


def config_here(folder: Path, paths: Mapping[str, str], accelerator: str) -> DictConfig:
    """Read the config in a run's results folder, with classes under their current names.

    `paths` and `accelerator` replace the saved `paths` and `trainer.accelerator`.
    """
    config = OmegaConf.create(upgrade((folder / "config.yaml").read_text(encoding="utf-8")))
    config.paths = dict(paths)
    config.trainer.accelerator = accelerator
    return config


def read_status(results: Path, work: Path) -> dict:
    """Read the status of the run in these folders, with at least the keys `state` and `stage`."""
    status = StatusFile(results / RUN, work / RUN_LOCK).read()
    # the name of the parent folder determines the stage; see `identity.path_parts`
    level = results.parent.name.partition("_")[0]
    stage = {"addpred": "predictor", "datapred": "communication"}.get(level, "featurizer")
    return {"stage": stage} | status


def propagate_unfinished(records: list[Record]) -> dict[str, list[Record]]:
    """Group records by stage; unfinished runs count as unfinished in their jobs' later stages, too.

    If a job's featurizer failed, its predictor has no run, but must count as unfinished too. Among
    records with the same identity, the latest done one is kept; if none is done, the latest one.
    """
    by_id = {}
    for record in sorted(records, key=lambda record: (record.state == DONE, record.finished)):
        by_id[record.stage, record.config.id(record.stage)] = record
    for record in records:
        if record.state == DONE or record.config.value("is_only_feat"):
            continue
        for stage in STAGES[STAGES.index(record.stage) + 1 :]:
            later = Record(stage, record.state, record.folder, record.config)
            by_id.setdefault((stage, record.config.id(stage)), later)
    return {stage: [r for r in by_id.values() if r.stage == stage] for stage in STAGES}


def read_metrics(file: Path) -> dict[str, float]:
    """Read a run's metrics from a CSV file; raise ValueError, naming the file, if it is damaged."""
    rows = read_csv(file)
    try:
        return {name: float(value) for name, value in rows[0].items()}
    except (IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{file} has no row of numbers") from error


@functools.lru_cache(MAX_CONFIGS)
def _parse(text: str) -> SavedConfig:
    return SavedConfig(yaml.load(text, yaml.CSafeLoader))


def _compressor_elsewhere(config: SavedConfig, experiment: Path) -> Path | None:
    """Folder of the compressor's run if another experiment contains it; None otherwise."""
    if compressor_folder(config.values) == experiment.name:
        return None
    run = run_folder(config.values, STAGES[0]) / f"run_{config.id(STAGES[0])}"
    folder = experiment.parent / run
    return folder if (folder / RUN).is_file() else None


def _read_all(folders: Iterable[Path], results: Path, states: Counter) -> list[Record]:
    """Read the runs in these folders, skipping unreadable ones; count both kinds in `states`."""
    records = []
    for folder in folders:
        try:
            records.append(_read(folder, results))
            states[records[-1].state] += 1
        except (OSError, ValueError, KeyError, yaml.YAMLError) as error:
            # one damaged file must not hide the others
            states[MISSING if isinstance(error, FileNotFoundError) else "unreadable"] += 1
            _warn(folder, error)
    return records


def _read(folder: Path, results: Path) -> Record:
    """Read the run in a folder; `results` is the folder that contains all experiments."""
    config = read_config(folder)
    work = Path(str(config.value("paths.pretrained"))) / folder.relative_to(results)
    status = read_status(folder, work)
    stage, state, metrics = status["stage"], status["state"], {}
    if state == DONE:
        try:
            metrics = read_metrics(folder / f"results_{stage}.csv")
        except FileNotFoundError as error:
            state = MISSING
            _warn(folder, error)
    if undefined := [name for name, value in metrics.items() if math.isnan(value)]:
        print(f"NaN, so excluded from means: {', '.join(undefined)} in {folder}", file=sys.stderr)
    return Record(stage, state, folder, config, metrics, str(status.get("finished", "")))


def _warn(folder: Path, error: Exception) -> None:
    print(
        f"left out of the tables: {folder} cannot be read ({error}); delete the folder and run "
        "the experiment again",
        file=sys.stderr,
    )


def _flat(node: object, prefix: str = "") -> dict[str, object]:
    """A nested config as {"a.b.c": value}."""
    if not isinstance(node, dict):
        return {prefix: node}
    items = [_flat(value, f"{prefix}.{key}" if prefix else key) for key, value in node.items()]
    return {key: value for item in items for key, value in item.items()}
