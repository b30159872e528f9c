"""Images to compress: folders of image files, torchvision-style data sets, and shards of both."""

import copy
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import Dataset, Subset
from torchvision.datasets import DatasetFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

from lossyless.hub import SourceError
from lossyless.hub.labels import PathLike
from lossyless.pixels import to_rgb

MAX_LISTED = 5  # names in a warning
# Lower-case names of files and folders that NAS and desktop systems create, except hidden ones.
SYSTEM = frozenset(
    ["#recycle", "#snapshot", "$recycle.bin", "@eadir", "@recycle", "@tmp", "__macosx"]
    + ["desktop.ini", "ehthumbs.db", "lost+found", "network trash folder", "recycler"]
    + ["system volume information", "temporary items", "thumbs.db"]
)


class ImageFolder(Dataset):
    """All image files below a folder, sorted folder by folder.

    Paths are compared component by component: `cat/2.png` precedes `cat (old)/1.png`, just as the
    class "cat" precedes "cat (old)". An example is (image, class index or None), with the image as
    converted by `lossyless.pixels.to_rgb`. Links are followed. Hidden files, files that NAS and
    desktop systems create (`SYSTEM`), and files of other types are skipped and counted in warnings.
    Other warnings name class folders without images, and duplicates due to links.

    Parameters
    ----------
    root : folder to search recursively.
    has_classes : whether the folders directly below `root` are classes.
    classes : names of the classes, in index order; by default the sorted folder names.

    Attributes
    ----------
    samples : list of (path, class index or None), as in torchvision's `ImageFolder`.
    classes : names of the classes, or None.

    Raises SourceError if the folder does not exist or has no images, or if an image has no class or
    one that is not in `classes`.
    """

    def __init__(
        self, root: PathLike, *, has_classes: bool = False, classes: Sequence[str] | None = None
    ):
        self.root = Path(root)
        if not self.root.is_dir():
            problem = "is a file, not a folder" if self.root.exists() else "no such folder"
            raise SourceError(f"{self.root}: {problem}")
        self._prefix = os.path.join(self.root, "")
        skipped: Counter = Counter()
        files = list(_files_below(str(self.root), skipped))
        suffixes = [os.path.splitext(path)[1].lower() for path, _ in files]
        images = [file for file, s in zip(files, suffixes, strict=True) if s in IMG_EXTENSIONS]
        if not images:
            found = f", such as {files[0][0]}," if files else ""
            expected = ", ".join(IMG_EXTENSIONS)
            raise SourceError(
                f"{self.root}: none of the {len(files)} files{found} is an image ({expected})"
            )
        self._warn("hidden or system files and folders skipped", skipped)
        others = Counter(
            suffix or "no suffix" for suffix in suffixes if suffix not in IMG_EXTENSIONS
        )
        self._warn(f"of {len(files)} files skipped because their type is not supported", others)
        firsts: dict[str, str] = {}
        copies = [path for path, real in images if firsts.setdefault(real, path) != path]
        self._warn("duplicate images found through links", Counter(copies))
        paths = [path for path, _ in images]
        self.classes = self._find_classes(paths, classes) if has_classes else None
        numbers = {name: number for number, name in enumerate(self.classes or [])}
        self.samples = [(path, numbers.get(self._class_of(path))) for path in paths]

    def _find_classes(self, paths: list[str], given: Sequence[str] | None) -> list[str]:
        for path in paths:
            if (name := self._class_of(path)) is None:
                raise SourceError(
                    f"{path}: has no class: the folders directly below {self.root} are the "
                    "classes. Move the image into one of them, or compress without labels."
                )
            if given is not None and name not in given:
                raise SourceError(f"{path}: {name!r} is not one of the {len(given)} given classes")
        if given is not None:
            return [*given]
        classes = sorted({self._class_of(path) for path in paths})
        folders = {e.name for e in os.scandir(self.root) if e.is_dir() and not _is_system(e.name)}
        self._warn("folders without images are not classes", Counter(sorted(folders - {*classes})))
        return classes

    def _warn(self, what: str, found: Counter) -> None:
        if found:
            listed = ", ".join(f"{name} ({n})" for name, n in found.most_common(MAX_LISTED))
            warnings.warn(f"{self.root}: {found.total()} {what}: {listed}", stacklevel=3)

    def _class_of(self, path: str) -> str | None:
        folder, is_below, _ = path[len(self._prefix) :].partition(os.sep)
        return folder if is_below else None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> tuple[Image.Image, int | None]:
        path, target = self.samples[i]
        with Image.open(path) as image:
            return to_rgb(image), target


def _is_system(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM


def _files_below(
    folder: str, skipped: Counter, above: tuple[str, ...] = ()
) -> Iterator[tuple[str, str]]:
    """Yield all files below a folder in order, including broken links, with their real paths.

    Names of hidden and system files and folders are counted in `skipped`. Links to any of the
    folders in `above` are not followed.
    """
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if _is_system(entry.name):
            skipped[entry.name] += 1
        elif entry.is_dir():
            yield from _files_below(entry.path, skipped, (*above, real))
        elif entry.is_symlink():
            yield entry.path, os.path.realpath(entry.path)
        elif entry.is_file():
            yield entry.path, os.path.join(real, entry.name)


def take_shard(dataset: Any, index: int, n_shards: int) -> Dataset:
    """Return shard `index` (zero-based), a run of consecutive examples. Sizes differ by at most 1.

    Raises ValueError if there is no such shard, and SourceError if some shards would be empty.
    """
    if not 0 <= index < n_shards:
        raise ValueError(f"shard: expected (index, n) with 0 <= index < n, found {index, n_shards}")
    if n_shards > len(dataset):
        raise SourceError(f"{len(dataset)} images are too few for {n_shards}: use fewer shards")
    start, end = (len(dataset) * i // n_shards for i in (index, index + 1))
    if not isinstance(dataset, ImageFolder):
        return Subset(dataset, range(start, end))
    shard = copy.copy(dataset)
    shard.samples = dataset.samples[start:end]
    return shard


def image_paths(dataset: Any) -> list[str] | None:
    """Return the paths of the files in an image folder, in order; None for other data sets."""
    is_folder = isinstance(dataset, (ImageFolder, DatasetFolder))
    return [os.fspath(path) for path, _ in dataset.samples] if is_folder else None


def image_names(dataset: Any) -> list[str] | None:
    """Return the image paths relative to the folder; None unless `dataset` is an image folder."""
    paths = image_paths(dataset)
    return paths and [path.removeprefix(os.path.join(dataset.root, "")) for path in paths]


def n_source_bytes(dataset: Any) -> int | None:
    """Return the size of an image folder's files, without broken links; None for other data."""
    paths = image_paths(dataset)
    return paths and sum(os.path.getsize(path) for path in paths if os.path.exists(path))
