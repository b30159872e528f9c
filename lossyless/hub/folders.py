"""Folders of image files, and the files that data sets are made of."""

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import Dataset, Subset
from torchvision.datasets.folder import IMG_EXTENSIONS

from lossyless.hub.errors import SourceError
from lossyless.hub.pixels import to_8_bits

MAX_LISTED = 5  # suffixes in a warning


class ImageFolder(Dataset):
    """All image files below a folder, in the order of their sorted paths; not hidden ones.

    An example is (image, class): the classes are the folders directly below `root`, numbered in
    sorted order; without `has_classes`, all classes are None. Links to folders are followed, but
    for one that leads back to a folder that it is in. Files that are no images by their suffixes
    are left out, with a warning that counts them.

    Parameters
    ----------
    root : folder that is searched with everything below it.
    has_classes : whether the folders directly below are classes.

    Attributes
    ----------
    paths : list of Path
    classes : names of the classes, or None
    targets : number of each image's class, or None for each
    """

    def __init__(self, root: str | os.PathLike, *, has_classes: bool = False):
        self.root = Path(root)
        if not self.root.is_dir():
            problem = "a file, not a folder" if self.root.exists() else "there is no such folder"
            raise SourceError(f"{self.root}: {problem}")
        files = list(_files_below(self.root))
        self.paths = sorted(file for file in files if file.suffix.lower() in IMG_EXTENSIONS)
        if not self.paths:
            raise SourceError(
                f"{self.root}: found no image ({', '.join(IMG_EXTENSIONS)}) in it or below, "
                f"among {len(files)} files"
            )
        self._warn_of_others(files)
        self.classes = self._find_classes() if has_classes else None
        numbers = {name: number for number, name in enumerate(self.classes or [])}
        self.targets = [numbers.get(self._class_of(path)) for path in self.paths]

    def _warn_of_others(self, files: list[Path]) -> None:
        suffixes = [file.suffix.lower() for file in files]
        counts = Counter(suffix for suffix in suffixes if suffix not in IMG_EXTENSIONS)
        if not counts:
            return
        listed = [f"{s or 'no suffix'} ({n})" for s, n in counts.most_common(MAX_LISTED)]
        more = ", ..." * (len(counts) > MAX_LISTED)
        warnings.warn(
            f"{self.root}: left out {counts.total()} of {len(files)} files, which are no images by "
            f"their suffixes: {', '.join(listed)}{more}",
            stacklevel=3,
        )

    def _find_classes(self) -> list[str]:
        for path in self.paths:
            if path.parent == self.root:
                raise SourceError(
                    f"{path}: labels are the names of the folders directly below {self.root}, but "
                    "this image is in none. Move it into one, or compress without labels."
                )
        return sorted({self._class_of(path) for path in self.paths})

    def _class_of(self, path: Path) -> str:
        return path.relative_to(self.root).parts[0]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[Image.Image, int | None]:
        with Image.open(self.paths[i]) as image:
            picture = to_8_bits(image).convert("RGB")
        return picture, self.targets[i]


def _files_below(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """All files below a folder, broken links among them, but for what systems leave beside images:
    `.DS_Store`, `._photo.jpg`, `__MACOSX/`, ...

    above : device and inode of the folders that this one is in.
    """
    stat = folder.stat()
    here = (stat.st_dev, stat.st_ino)
    if here in above:  # a link that leads back
        return
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name == "__MACOSX":
            continue
        if path.is_dir():
            yield from _files_below(path, above | {here})
        elif path.is_file() or path.is_symlink():
            yield path


def take_shard(dataset: Any, index: int, n_shards: int) -> Subset:
    """One of `n_shards` consecutive parts of a data set, of equal size up to one example.

    Files of all of them, merged in their order, hold the examples in the data set's order.

    Raises
    ------
    ValueError
        There is no such shard.
    SourceError
        Some shards would be empty.
    """
    if not 0 <= index < n_shards:
        raise ValueError(
            f"shard: expected (index, number of shards) with 0 <= index < number, found "
            f"{index, n_shards}"
        )
    if n_shards > len(dataset):
        raise SourceError(
            f"{len(dataset)} images are too few for {n_shards} shards: take fewer shards"
        )
    start, end = (len(dataset) * i // n_shards for i in (index, index + 1))
    return Subset(dataset, range(start, end))


def file_paths(dataset: Any) -> Sequence[str | Path] | None:
    """The image files of a data set in its order, or None if it does not tell."""
    if isinstance(dataset, Subset):
        paths = file_paths(dataset.dataset)
        return None if paths is None else [paths[i] for i in dataset.indices]
    if isinstance(dataset, ImageFolder):
        return dataset.paths
    samples = getattr(dataset, "samples", None)  # of torchvision's folders of images
    if isinstance(samples, list) and samples and isinstance(samples[0], tuple):
        return [sample[0] for sample in samples]
    return None


def n_source_bytes(dataset: Any) -> int | None:
    """Bytes of the image files of a data set, or None if it has no files of its own."""
    paths = file_paths(dataset)
    if not paths or not all(isinstance(p, (str, Path)) and os.path.isfile(p) for p in paths):
        return None
    return sum(os.path.getsize(path) for path in paths)
