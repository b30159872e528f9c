"""What is missing of a damaged file, and the labels of what is not."""

import os
import warnings

import numpy as np
from numpy.typing import NDArray

from lossyless.feature_files import FeatureFile
from lossyless.hub.labels import load_labels
from lossyless.hub.official_format import OfficialFile


def kept_labels(
    label_file: str | os.PathLike, features: FeatureFile | OfficialFile, n_read: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Labels [n_read, ...] of the examples that were read, and which examples are missing.

    A file that lost its end does not know how many examples it held; its labels do.

    Raises
    ------
    SourceError
        The labels are not of this file.
    """
    n_known = n_read + len(features.missing)
    labels = load_labels(
        label_file,
        n_examples=n_known,
        of=features.path,
        checksum=features.labels_checksum,
        may_be_more=bool(features.damaged),
    )
    missing = np.append(features.missing, np.arange(n_known, len(labels)))
    return np.delete(labels, missing, axis=0), missing


def warn_of_damage(features: FeatureFile | OfficialFile, missing: NDArray[np.int64]) -> None:
    """Warn the caller's caller, if a file is damaged, of which examples are missing."""
    if features.damaged:
        lost = f": {spans(missing)}" if len(missing) else ", so far as the file tells"
        warnings.warn(
            f"{features.path}: is damaged, {len(missing)} examples are lost and left out{lost} "
            f"({features.damaged[0]})",
            stacklevel=3,
        )


def spans(indices: NDArray[np.int64]) -> str:
    """Sorted indices in words: "3, 8-11, 20"."""
    parts = np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1)
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts if len(p))
