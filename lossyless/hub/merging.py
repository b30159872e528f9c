"""Several compressed files to one, with the labels beside them."""

import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lossyless.container import ContainerReader
from lossyless.feature_files import merge_files
from lossyless.hub import SourceError
from lossyless.hub.files import check_distinct
from lossyless.hub.labels import load_labels, writing_labels
from lossyless.hub.official_format import is_official
from lossyless.hub.report import Report


def usual_label_file(file: str | os.PathLike) -> Path:
    """Where the labels of a compressed file are unless something else is said."""
    return Path(f"{os.fspath(file)}.labels.npy")


def merge(files: Sequence[Path], out: Path) -> Report:
    """`merge_files`, also of the labels that are beside all files; they go beside `out`.

    Where only some files have labels, those are left out, with a warning that names the others.

    Raises
    ------
    ContainerError
        See `merge_files`.
    SourceError
        A file is in the official format, or labels are not those of their file, or of different
        shapes; or a file would be overwritten that is read.
    """
    start = time.monotonic()
    for file in files:
        if is_official(file):
            raise SourceError(
                f"{file}: is in the official format, which cannot be merged. Decompress it, and "
                "compress the features with `compress_features`."
            )
    check_distinct([out, usual_label_file(out)], [*files, *map(usual_label_file, files)])
    without = [file for file in files if not usual_label_file(file).is_file()]
    label_file = None if without else usual_label_file(out)
    with writing_labels(label_file, out, lambda: _joined_labels(files)) as commit_labels:
        n_examples = merge_files(files, out, commit_labels=commit_labels)
    if 0 < len(without) < len(files):
        warnings.warn(
            f"{out}: has no labels, since there are none beside {', '.join(map(str, without))} "
            f"(expected as {usual_label_file('FILE')})",
            stacklevel=2,
        )
    return Report.of(out, n_examples, start, "Merging")


def _joined_labels(files: Sequence[Path]) -> NDArray[np.int64]:
    """Labels [N, ...] of all files, in their order."""
    parts = [_labels_of(file) for file in files]
    shape = parts[0].shape[1:]  # of a label
    for file, part in zip(files, parts, strict=True):
        if part.shape[1:] != shape:
            raise SourceError(
                f"{usual_label_file(file)}: expected labels of shape {shape}, as beside "
                f"{files[0]}, found {part.shape[1:]}"
            )
    return np.concatenate(parts)


def _labels_of(file: Path) -> NDArray[np.int64]:
    with ContainerReader(file) as reader:
        n_examples, checksum = reader.n_examples, reader.labels_checksum
    return load_labels(usual_label_file(file), n_examples=n_examples, of=file, checksum=checksum)
