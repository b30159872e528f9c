"""Features of a frozen tower on disk: computed once for each image.

A folder of the cache holds the features [N, z_dim] and the targets of one split (of one augmented
copy of it), and is either complete or not there. Its name ends in a digest of all that its content
depends on: the tower, its weights and its precision, the data set, the augmentations of a split
that has any, and `FORMAT`. Names, batch sizes, workers and paths are no part of it.
"""

import json
import os
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

# Of what the cache holds: raise it when code makes other features of the same settings.
FORMAT = 2
CHECK_BYTES = 2**24  # that are read at a time to check a file
ARRAYS = ("features", "targets")
FACTS = "facts.json"


@dataclass(frozen=True)
class Features:
    """One copy of one split.

    Attributes
    ----------
    x : float32 [N, z_dim], read from disk as it is needed.
    y : targets, int64 [N] or float32 [N, n_outputs].
    seconds : that the tower took for each image when they were computed.
    """

    x: Tensor
    y: Tensor
    seconds: float


class FeatureCache:
    """Features on disk.

    Parameters
    ----------
    folder : where they are kept.
    label : a few words that folders of this tower and data set begin with.
    key : all that the features depend on, besides split, copy and augmentations, as JSON can hold
        it.
    augmentation : what those of augmented splits depend on, too, besides the seed.
    """

    def __init__(self, folder: Path, label: str, key: dict, augmentation: dict):
        self.folder = folder
        self.label = label
        self.key = key
        self.augmentation = augmentation

    def path(self, split: str, copy: int, seed: int | None) -> Path:
        """The folder of a copy of a split; `seed` is that of its augmentations, if it has any."""
        return self.folder / f"{self.label}_{split}_{digest(self._identity(split, copy, seed))}"

    def _identity(self, split: str, copy: int, seed: int | None) -> dict:
        parts = self.key | {"format": FORMAT, "split": split}
        if seed is None:
            return parts
        return parts | {"augmentation": self.augmentation, "copy": copy, "seed": seed}

    def get(
        self, split: str, copy: int, seed: int | None, compute: Callable[[Path], dict]
    ) -> Features:
        """A copy of a split, which `compute` makes first if it is not there; see `path`.

        Only one process computes; others wait for it. Whatever ends the computation leaves nothing
        under the final name.

        Parameters
        ----------
        compute : writes the arrays into an empty folder and returns further facts, among them
            "seconds_per_image".

        Raises
        ------
        DataError
            If a file is damaged.
        """
        path = self.path(split, copy, seed)
        if not path.is_dir():
            writable_dir(self.folder, "paths.features")
            with FileLock(self.folder / f".{path.name}.lock"):
                if not path.is_dir():
                    _fill(path, compute, self._identity(split, copy, seed))
        return _load(path)


def _fill(path: Path, compute: Callable[[Path], dict], identity: dict) -> None:
    """Let `compute` make a folder, which takes its name once everything is on disk."""
    part = path.with_name(f".{path.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    part.mkdir()
    try:
        facts = compute(part)
        facts["crc32"] = {name: _checksum(array_file(part, name)) for name in ARRAYS}
        write_text(part / FACTS, json.dumps(facts | {"key": identity}, indent=2) + "\n")
        _to_disk(*part.iterdir(), part)
        part.replace(path)
        _to_disk(path.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def array_file(folder: Path, name: str) -> Path:
    """The file of one of the `ARRAYS` in a folder of the cache."""
    return folder / f"{name}.npy"


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(CHECK_BYTES):
            value = zlib.crc32(block, value)
    return value


def _load(folder: Path) -> Features:
    """The content of a folder; raises DataError that names the file if one is damaged."""
    path = folder / FACTS
    try:
        facts = json.loads(path.read_text())
        tensors = []
        for name in ARRAYS:
            path = array_file(folder, name)
            if _checksum(path) != facts["crc32"][name]:
                raise ValueError("its checksum is wrong")
            # copy on write: tensors must be writable, the file must not change
            tensors.append(torch.from_numpy(np.load(path, mmap_mode="c")))
        return Features(*tensors, seconds=facts["seconds_per_image"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"cached features {path} are damaged: {error}. Delete the folder {folder} to compute "
            "them again."
        ) from error


def _to_disk(*paths: Path) -> None:
    """Wait until the content of files, or the names in folders, would survive a power cut."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
