"""Features of a frozen tower as a data set: computed once for each image, and kept on disk.

A folder of the cache holds the features [N, z_dim] and the targets of one split (of one augmented
copy of it), and is either complete or not there. Its name ends in a digest of all that its content
depends on: the tower, its weights and its precision, the data set, the augmentations of a split
that has any, and `FORMAT`. Names, batch sizes, workers and paths are no part of it.
"""

import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from lossyless.batch import Batch
from lossyless.towers import Tower
from utils.data.base import BatchLoader, DataError, DataModule, check_choice
from utils.data.images import ImageDataModule
from utils.data.in_memory import InMemoryDataModule
from utils.files import writable_dir, write_text
from utils.identity import digest
from utils.progress import progress
from utils.timing import Stopwatch

# Of what the cache holds: raise it when code makes other features of the same settings.
FORMAT = 1
AUXILIARIES = ("none", "input", "target")  # what `Batch.aux` can be of vectors that are given
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
        facts["crc32"] = {name: _checksum(_array_file(part, name)) for name in ARRAYS}
        write_text(part / FACTS, json.dumps(facts | {"key": identity}, indent=2) + "\n")
        _to_disk(*part.iterdir(), part)
        part.replace(path)
        _to_disk(path.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _array_file(folder: Path, name: str) -> Path:
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
            path = _array_file(folder, name)
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


class FeatureDataModule(DataModule):
    """Features z [z_dim] of images by a frozen tower, with the targets of the images.

    x is the feature of the (augmented) image; `Batch.aux` is x itself (input) or the target. The
    splits are those of the images. Each is computed when it is first asked for.

    Parameters
    ----------
    images : the images, of which all batches are made with `images.eval_batch_size`.
    make_tower : makes the tower, for each split that has to be computed; it is then let go of.
    z_dim : dimensions of its features.
    cache : where the features are kept.
    device : where they are computed.
    n_copies : how many differently augmented copies of the training split there are. Epochs take
        turns in using them. Without augmentations there is one, whatever this says.
    auxiliary, batch_size, eval_batch_size, seed
        See `DataModule`.

    Raises
    ------
    ValueError
        If the auxiliary variable is one that features alone do not give.
    """

    kind = "vector"

    def __init__(
        self,
        images: ImageDataModule,
        make_tower: Callable[[], Tower],
        *,
        z_dim: int,
        cache: FeatureCache,
        device: torch.device,
        n_copies: int = 1,
        auxiliary: str = "none",
        batch_size: int = 128,
        eval_batch_size: int = 1024,
        seed: int = 123,
    ) -> None:
        if auxiliary not in AUXILIARIES:
            raise ValueError(
                f"a distortion that compares with {auxiliary!r} needs images, but a frozen tower "
                "hands on features: choose distortion=lossy_Z, or tower=none"
            )
        super().__init__(
            auxiliary=auxiliary,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            seed=seed,
            data_dir=images.data_dir,
        )
        self.images = images
        self.shape = (z_dim,)
        self.task, self.n_outputs = images.task, images.n_outputs
        self.class_names, self.is_labelled = images.class_names, images.is_labelled
        self.n_copies = n_copies
        self._make_tower = make_tower
        self._cache = cache
        self._compute_on = device
        self._loaded: dict[str, tuple[int, _OneSplit]] = {}

    def n_examples(self, split: str) -> int:
        return self.images.n_examples(split)

    def loader(
        self,
        split: str,
        *,
        device: torch.device | str = "cpu",
        epoch: int = 0,
        shuffle: bool | None = None,
    ) -> BatchLoader:
        """See `DataModule.loader`.

        Unshuffled, the k-th epoch is the k-th copy; shuffled, epochs take turns in the `n_copies`.
        """
        is_shuffled = split == "train" if shuffle is None else shuffle
        source = self._source(split, epoch % self.n_copies if is_shuffled else epoch)
        return source.loader(split, device=device, epoch=epoch, shuffle=shuffle)

    def make_batches(
        self, split: str, *, batch_size: int, is_shuffled: bool, generator: torch.Generator
    ) -> Iterator[Batch]:
        """Yield all batches of the first copy of a split."""
        return self._source(split, 0).make_batches(
            split, batch_size=batch_size, is_shuffled=is_shuffled, generator=generator
        )

    def encoder_time(self, split: str) -> float:
        """Seconds that the tower took for an image of a split, when its features were computed."""
        return self._source(split, 0).features.seconds

    def _source(self, split: str, copy: int) -> "_OneSplit":
        """A copy of a split; the last one of each split stays at hand."""
        is_augmented = not self.images.augmentation_of(split).is_identity
        copy = copy if split == "train" and is_augmented else 0
        if self._loaded.get(split, (None, None))[0] != copy:
            which = split, copy, self.seed if is_augmented else None
            features = self._cache.get(
                *which, compute=lambda folder: self._compute(folder, split, copy)
            )
            found, expected = list(features.x.shape), [self.n_examples(split), *self.shape]
            if found != expected:
                raise DataError(
                    f"cached features {self._cache.path(*which)} are {found}, expected {expected}: "
                    "the images are not those that they were computed of. Delete the folder to "
                    "compute them again."
                )
            self._loaded[split] = copy, _OneSplit(self, split, features)
        return self._loaded[split][1]

    def _compute(self, folder: Path, split: str, copy: int) -> dict:
        """Write features and targets of a copy of a split into a folder."""
        device = self._compute_on
        tower = self._make_tower().to(device)
        loader = self.images.loader(split, device=device, epoch=copy, shuffle=False)
        n = loader.n_examples
        where = f"on {device}, once: {self._cache.folder}"
        print(f"features of {n:,} images ({split}) {where}", flush=True)
        x = np.lib.format.open_memmap(
            _array_file(folder, "features"), "w+", dtype=np.float32, shape=(n, *self.shape)
        )
        targets, end, watch = [], 0, Stopwatch(device)
        for batch in progress(loader, f"features {self._cache.label} {split}"):
            with watch:
                features = tower(batch.x)
            if not features.isfinite().all():
                raise DataError(f"the tower's features of {split} are not finite: its weights?")
            start, end = end, end + len(batch.x)
            x[start:end] = features.cpu().numpy()
            targets.append(batch.y.cpu())
        x.flush()
        np.save(_array_file(folder, "targets"), torch.cat(targets).numpy())
        return {"seconds_per_image": watch.seconds / n, "device": device.type}


def _to_disk(*paths: Path) -> None:
    """Wait until the content of files, or the names in folders, would survive a power cut."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class _OneSplit(InMemoryDataModule):
    """One copy of one split of a `FeatureDataModule`, with its settings."""

    def __init__(self, parent: FeatureDataModule, split: str, features: Features) -> None:
        super().__init__(
            auxiliary=parent.auxiliary,
            batch_size=parent.batch_size,
            eval_batch_size=parent.eval_batch_size,
            seed=parent.seed,
        )
        self.split = check_choice("split", split, ("train", "val", "test"))
        self.features = features

    def load_splits(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {self.split: (self.features.x, self.features.y)}

    def make_batch(
        self, inputs: Tensor, targets: Tensor, *, split: str, **generators: torch.Generator
    ) -> Batch:
        auxiliaries = {"none": None, "input": inputs, "target": targets}
        return Batch(inputs, targets, auxiliaries[self.auxiliary])
