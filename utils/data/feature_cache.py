"""On-disk cache of a frozen backbone's features.

Each folder of the cache holds the features [N, z_dim] and targets of one split (or of one augmented
copy of it), and is either complete or absent. Its name ends in a digest of everything its contents
depend on: the backbone, its weights and precision, the data set, the augmentations of augmented
splits, and `FORMAT`. The digest does not cover option names, batch sizes, workers or paths.
"""

import json
import mmap
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from utils.data.module import DataError
from utils.runs.files import writable_dir, write_text
from utils.runs.identity import digest

FORMAT = 2  # increment when the code computes different features from the same settings
ARRAYS = ("features", "targets")
FACTS = "facts.json"


@dataclass(frozen=True)
class Features:
    """Features and targets of one copy of one split."""

    x: Tensor  # float32 [N, z_dim], memory-mapped
    y: Tensor  # targets, int64 [N] or float32 [N, n_outputs]
    seconds: float  # seconds per image that the backbone took


@dataclass(frozen=True)
class FeatureCache:
    """Cache of features on disk."""

    folder: Path
    label: str  # prefix of its folders' names, e.g. "MNIST_Clip"
    key: dict  # what features depend on, except for split, copy and augmentations; JSON types
    augmentation: dict  # what else augmented splits depend on, apart from the seed
    setting: str = "paths.features"  # setting that `folder` comes from, for error messages

    def path(self, split: str, copy: int, seed: int | None) -> Path:
        """The folder of a copy of a split; `seed` is the seed of its augmentations, if any."""
        return self.folder / f"{self.label}_{split}_{digest(self._identity(split, copy, seed))}"

    def _identity(self, split: str, copy: int, seed: int | None) -> dict:
        parts = self.key | {"format": FORMAT, "split": split}
        if seed is None:
            return parts
        return parts | {"augmentation": self.augmentation, "copy": copy, "seed": seed}

    def get(
        self, split: str, copy: int, seed: int | None, compute: Callable[[Path], dict]
    ) -> Features:
        """Load a copy of a split, computing it first if it is not in the cache; see `path`.

        `compute` writes the arrays into an empty folder and returns facts to store, including
        "seconds_per_image". One process computes while others wait. The arrays of an interrupted
        computation are never used. Raises DataError if a file is damaged.
        """
        path = self.path(split, copy, seed)
        if not path.is_dir():
            writable_dir(self.folder, self.setting)
            with FileLock(self.folder / f".{path.name}.lock"):
                if not path.is_dir():
                    _fill(path, compute, self._identity(split, copy, seed))
        return _load(path)


def _fill(path: Path, compute: Callable[[Path], dict], identity: dict) -> None:
    """Compute the contents of a folder, which is renamed to `path` when it is complete."""
    part = path.with_name(f".{path.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # left by a killed process
    part.mkdir()
    try:
        facts = compute(part)
        facts["crc32"] = {name: _checksum(array_file(part, name)) for name in ARRAYS}
        write_text(part / FACTS, json.dumps(facts | {"key": identity}, indent=2) + "\n")
        part.replace(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def array_file(folder: Path, name: str) -> Path:
    """Path of the file in `folder` that holds one of the `ARRAYS`."""
    return folder / f"{name}.npy"


def _checksum(path: Path) -> int:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return zlib.crc32(content)


def _load(folder: Path) -> Features:
    """Load the contents of a folder; if a file is damaged, raise a DataError that names it."""
    path = folder / FACTS
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        tensors = []
        for name in ARRAYS:
            path = array_file(folder, name)
            if _checksum(path) != facts["crc32"][name]:
                raise ValueError("wrong checksum")
            # copy on write: tensors must be writable, but the file must not change
            tensors.append(torch.from_numpy(np.load(path, mmap_mode="c")))
        return Features(*tensors, seconds=facts["seconds_per_image"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"cached features {path} are damaged: {error}. Delete the folder {folder} to compute "
            "them again."
        ) from error
