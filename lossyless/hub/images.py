"""Images to compress: folders of image files, data sets in torchvision's style, batches of both."""

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, default_collate
from torchvision.datasets.folder import IMG_EXTENSIONS

from lossyless.hub import SourceError
from lossyless.hub.labels import PathLike
from lossyless.parallel import WorkerError, available_cores, can_fork
from lossyless.pixels import to_rgb

#: what PIL raises for files that are not images or are incomplete
UNREADABLE = (MemoryError, OSError, SyntaxError, ValueError, Image.DecompressionBombError)
# arguments of DataLoader that decide which examples a file holds, and in which order
FIXED_SETTINGS = {
    "collate_fn": None,
    "shuffle": False,
    "sampler": None,
    "batch_sampler": None,
    "drop_last": False,
    "in_order": True,
}


class ImageFolder(Dataset):
    """All image files below a folder, in the order of their sorted paths.

    An example is (image, class), with images as by `lossyless.pixels.to_rgb`. Hidden files are
    skipped, links to folders are followed, and other files are skipped with a warning.

    Parameters
    ----------
    root : folder that is searched recursively.
    has_classes : whether the folders directly below `root` are classes.
    classes : their names in the order of their indices; by default the sorted folders.

    Attributes
    ----------
    paths : list of Path
    classes : names of the classes, or None
    targets : index of each image's class, or None for each

    Raises SourceError if the folder does not exist or holds no image, or an image has no class.
    """

    def __init__(
        self, root: PathLike, *, has_classes: bool = False, classes: Sequence[str] | None = None
    ):
        self.root = Path(root)
        if not self.root.is_dir():
            problem = "is a file, not a folder" if self.root.exists() else "no such folder"
            raise SourceError(f"{self.root}: {problem}")
        files = list(_files_below(self.root))
        self.paths = sorted(file for file in files if file.suffix.lower() in IMG_EXTENSIONS)
        if not self.paths:
            suffixes = ", ".join(IMG_EXTENSIONS)
            raise SourceError(
                f"{self.root}: none of its {len(files)} files is an image ({suffixes})"
            )
        self._warn_of_other_files(files)
        self.classes = self._find_classes(classes) if has_classes else None
        numbers = {name: number for number, name in enumerate(self.classes or [])}
        self.targets = [numbers.get(self._class_of(path)) for path in self.paths]

    def _warn_of_other_files(self, files: list[Path]) -> None:
        suffixes = Counter(file.suffix.lower() or "no suffix" for file in files)
        others = [(s, n) for s, n in suffixes.most_common() if s not in IMG_EXTENSIONS]
        if others:
            listed = ", ".join(f"{suffix} ({n})" for suffix, n in others[:5])
            warnings.warn(
                f"{self.root}: skipped {sum(n for _, n in others)} of {len(files)} files, whose "
                f"suffixes are not those of images: {listed}{', ...' * (len(others) > 5)}",
                stacklevel=3,
            )

    def _find_classes(self, given: Sequence[str] | None) -> list[str]:
        for path in self.paths:
            if path.parent == self.root:
                raise SourceError(
                    f"{path}: has no class: the folders directly below {self.root} are the "
                    "classes. Move the image into one of them, or compress without labels."
                )
            if given is not None and (name := self._class_of(path)) not in given:
                raise SourceError(f"{path}: {name!r} is none of the {len(given)} classes given")
        return sorted({self._class_of(path) for path in self.paths}) if given is None else [*given]

    def _class_of(self, path: Path) -> str:
        return path.relative_to(self.root).parts[0]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[Image.Image, int | None]:
        with Image.open(self.paths[i]) as image:
            return to_rgb(image), self.targets[i]


def _files_below(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """All files below a folder, including broken links, without `.DS_Store`, `__MACOSX/`, ...

    above : device and inode of the parent folders: a link to one of them is not followed.
    """
    stat = folder.stat()
    here = (stat.st_dev, stat.st_ino)
    if here in above:
        return
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name == "__MACOSX":
            continue
        if path.is_dir():
            yield from _files_below(path, above | {here})
        elif path.is_file() or path.is_symlink():
            yield path


def take_shard(dataset: Any, index: int, n_shards: int) -> Subset:
    """Shard `index` (from 0) of a data set: consecutive examples, shards equal up to one example.

    Raises ValueError if there is no such shard, SourceError if some shards would be empty.
    """
    if not 0 <= index < n_shards:
        raise ValueError(f"shard: expected (index, n) with 0 <= index < n, found {index, n_shards}")
    if n_shards > len(dataset):
        raise SourceError(f"{len(dataset)} images are too few for {n_shards} shards: use fewer")
    start, end = (len(dataset) * i // n_shards for i in (index, index + 1))
    return Subset(dataset, range(start, end))


def file_paths(dataset: Any) -> Sequence[str | Path] | None:
    """The image files of a data set in its order, if it exposes them; else None."""
    if isinstance(dataset, Subset):
        paths = file_paths(dataset.dataset)
        return None if paths is None else [paths[i] for i in dataset.indices]
    if isinstance(dataset, ImageFolder):
        return dataset.paths
    samples = getattr(dataset, "samples", None)  # of torchvision's ImageFolder
    is_listed = isinstance(samples, list) and samples and isinstance(samples[0], tuple)
    return [sample[0] for sample in samples] if is_listed else None


def n_source_bytes(dataset: Any) -> int | None:
    """Bytes of the image files of a data set, or None if it exposes none."""
    paths = file_paths(dataset)
    if not paths or not all(isinstance(p, (str, Path)) and os.path.isfile(p) for p in paths):
        return None
    return sum(os.path.getsize(path) for path in paths)


class Examples(Dataset):
    """Transformed images [3, side, side] of a data set, with their labels.

    An unusable example is returned as a `SourceError`: raised in a worker process, its message
    would contain the worker's traceback.

    Parameters
    ----------
    dataset : examples are (image, label, ...), (image,) or image; an image is a PIL image, or a
        tensor made by `transform`.
    transform : PIL image to float tensor [3, side, side].
    side : pixels.
    """

    def __init__(self, dataset: Any, transform: Callable[[Image.Image], Tensor], side: int):
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise SourceError(
                "expected a folder, or a data set with `__len__` and `__getitem__`, found "
                f"{type(dataset).__name__}"
            )
        self.dataset = dataset
        self.transform = transform
        self.side = side

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> tuple[Tensor, Any] | SourceError:
        try:
            example = self.dataset[i]
            image, *rest = example if isinstance(example, (tuple, list)) else (example,)
            if isinstance(image, Image.Image):
                image = self.transform(image)
        except UNREADABLE as error:
            return SourceError(
                f"{self._name(i)}: cannot be read as an image ({type(error).__name__}: {error}). "
                "Repair or remove it."
            )
        shape = (3, self.side, self.side)
        if isinstance(image, Tensor) and image.is_floating_point() and image.shape == shape:
            return image, rest[0] if rest else None
        found = type(image).__name__
        if isinstance(image, (Tensor, np.ndarray)):
            found = f"{image.dtype} {list(image.shape)}"
        return SourceError(
            f"{self._name(i)}: expected a PIL image, or the float tensor {list(shape)} that "
            f"`transform` makes of it, found {found}. Create the data set without a transform, or "
            "with `transform=compressor.transform`."
        )

    def _name(self, i: int) -> str:
        paths = file_paths(self.dataset)
        return f"image {i} of {type(self.dataset).__name__}" if paths is None else str(paths[i])


def read_batches(
    examples: Examples, *, device: torch.device, **kwargs_dataloader: Any
) -> Iterator[tuple[Tensor, list[Any]]]:
    """Batches of images [B, 3, side, side] on the CPU, and their labels, in the data set's order.

    Parameters
    ----------
    examples : images and labels.
    device : where the network runs; it decides how many processes read images by default.
    kwargs_dataloader : for `torch.utils.data.DataLoader`; by default batches of 128. Without
        `fork`, no worker processes are used.

    Raises
    ------
    SourceError
        An image cannot be used.
    ValueError
        A setting would change the examples or their order.
    WorkerError
        A process that reads images died, for instance for lack of memory.
    """
    settings = {
        "batch_size": 128,
        "num_workers": default_workers(device),
        "pin_memory": device.type == "cuda",
        # DataLoader would draw the seeds of its workers from the global generator
        "generator": torch.Generator(),
    } | _checked(kwargs_dataloader)
    if not can_fork():
        settings["num_workers"] = 0
    if settings["num_workers"] > 0:
        # spawned workers would import `lossyless`, which torch.hub removes from sys.path
        settings.setdefault("multiprocessing_context", "fork")
    loader = DataLoader(examples, collate_fn=_collate, **settings)
    for i, batch in enumerate(_naming_dead_workers(loader)):
        if isinstance(batch, SourceError):
            raise batch
        if i == 0 and batch[0].min() >= 0 and batch[0].max() <= 1:  # black is below -1.4
            warnings.warn(
                "all pixels of the first batch lie in [0, 1], so they are not normalised for CLIP: "
                "create the data set with `transform=compressor.transform`, or without a transform",
                stacklevel=2,
            )
        yield batch


def _naming_dead_workers(loader: DataLoader) -> Iterator[Any]:
    """The batches; WorkerError, which is one line, if the system kills a process that reads."""
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise WorkerError(
            "a process that reads images died, probably for lack of memory: use fewer or none "
            "(num_workers=0, --workers 0), or smaller batches (batch_size=, --batch-size)"
        ) from None


def default_workers(device: torch.device) -> int:
    """Processes that read images: all cores feed a GPU; a network on the CPU needs most of them."""
    if not can_fork():
        return 0
    n_cores = available_cores()
    if device.type == "cpu":
        return max(1, n_cores // 4) if n_cores > 1 else 0
    return min(n_cores, 16)


def _checked(kwargs_dataloader: dict[str, Any]) -> dict[str, Any]:
    """The settings without the fixed ones, which may be given with the values that they have."""
    for name, value in kwargs_dataloader.items():
        is_changed = name in FIXED_SETTINGS and value not in (None, FIXED_SETTINGS[name])
        if is_changed or (name, value) == ("batch_size", None):
            raise ValueError(
                f"kwargs_dataloader: {name} cannot be {value!r}: all examples are compressed in "
                "batches, in their order. To compress others, pass a torch.utils.data.Subset."
            )
    return {name: v for name, v in kwargs_dataloader.items() if name not in FIXED_SETTINGS}


def _collate(examples: list[tuple[Tensor, Any] | SourceError]):
    for example in examples:
        if isinstance(example, SourceError):
            return example
    images, labels = zip(*examples, strict=True)
    return default_collate(list(images)), list(labels)
