"""Labels in compressed files or separate .npy files, and class names.

Files written by `lossyless.files` can store labels. Files in the official format or written by
earlier versions of this project cannot: their labels are in a separate .npy file.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lossyless.files import CompressedFile, FeatureFile
from lossyless.files.labels import as_array
from lossyless.hub import SourceError
from lossyless.hub.official_format import OfficialFile

PathLike = str | os.PathLike
Labels = NDArray[np.int64]


def to_labels(labels: Any) -> Labels:
    """Convert a tensor, array, pandas object or sequence of integers to int64 labels [N, ...].

    Raises SourceError if the labels are not integers, exceed int64, differ in shape, or are a set
    or a dict.
    """
    try:
        array = as_array(labels)
    except (TypeError, ValueError) as error:
        raise SourceError(f"labels cannot be used: {error}") from None
    if array.size and (array.dtype.kind not in "iub" or array.max() > np.iinfo(np.int64).max):
        raise SourceError(
            f"expected int64 labels [N, ...], found {array.dtype} {list(array.shape)}, such as "
            f"{array.flat[0]!r}. To compress without labels, leave out `labels` and `label_file`."
        )
    return array.astype(np.int64, copy=False)


def read_labels(features: FeatureFile | OfficialFile, label_file: PathLike | None) -> Labels:
    """Return the labels [n, ...] of the examples that `features.read()` returns.

    Raises SourceError if there are no labels, they are not integers, or their number is wrong.
    """
    if isinstance(features, FeatureFile) and features.header.version > 1:
        labels = features.labels()
        if labels is None:
            raise SourceError(f"{features.name}: was compressed without labels")
        return labels
    if label_file is None:
        raise SourceError(
            f"{features.name}: files in this format store no labels: pass the .npy file that was "
            "written with this file (label_file=, --label-file)"
        )
    try:
        with open(label_file, "rb") as file:  # unlike np.load, this does not read archives
            labels = to_labels(np.lib.format.read_array(file, allow_pickle=False))
    except (ValueError, EOFError) as error:  # SourceError is a ValueError
        raise SourceError(f"{label_file}: not a complete .npy file of labels ({error})") from None
    n_examples = len(features)
    if len(labels) != n_examples and not (features.damaged and len(labels) > n_examples):
        raise SourceError(
            f"{label_file}: has {len(labels)} labels, but {features.name} holds {n_examples} "
            "examples"
        )
    return labels[features.indices]


def class_names(classes: PathLike | Sequence[str]) -> list[str]:
    """Return class names in index order, as given or as stored in a compressed file.

    Raises SourceError if a name occurs twice, or if the file stores no names.
    """
    if not isinstance(classes, PathLike):
        if len(set(classes)) < len(classes):
            raise SourceError(f"classes: duplicate names in {[*classes]}")
        return [*classes]
    with CompressedFile(classes) as file:
        names = file.classes
    if names is None:
        raise SourceError(
            f"{classes}: stores no class names: it was not compressed from a folder with labels"
        )
    return names
