"""Labels of compressed examples: integers of any type in a .npy file, kept exactly."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from lossyless.hub.files import replacing
from lossyless.hub.sources import SourceError


def to_labels(labels: Iterable[Any]) -> np.ndarray:
    """Integers [N, ...] of labels that are Python or numpy integers or tensors.

    Python integers become int64; others keep their type.
    """
    labels = labels.cpu().numpy() if isinstance(labels, Tensor) else labels
    if not isinstance(labels, np.ndarray):
        labels = [y.numpy() if isinstance(y, Tensor) else np.asarray(y) for y in labels]
        shapes = {y.shape for y in labels}
        if len(shapes) > 1:
            raise SourceError(f"expected labels of one shape, found {sorted(shapes)}")
        labels = np.stack(labels) if labels else np.empty(0, np.int64)
    if labels.dtype.kind not in "iub":
        raise SourceError(
            f"expected integer labels, found {_describe(labels)}. Leave `label_file` out to "
            "compress without labels."
        )
    return labels


def join_labels(parts: list[np.ndarray]) -> np.ndarray:
    """Labels [N, ...] of the labels of batches."""
    return to_labels(np.concatenate(parts) if parts else ())


def _describe(labels: np.ndarray) -> str:
    has_none = labels.dtype == object and any(y is None for y in labels.flat)
    return "examples without a label" if has_none else f"{labels.dtype}"


def save_labels(path: str | os.PathLike, labels: np.ndarray) -> None:
    """Write labels [N, ...] under exactly this name; the file is there completely or not at all."""
    with replacing(path) as file:
        np.save(file, labels, allow_pickle=False)


def load_labels(
    path: str | os.PathLike,
    *,
    n_examples: int,
    of: str | os.PathLike,
    may_be_more: bool = False,
) -> np.ndarray:
    """Labels [n_examples, ...] of the examples in the file `of`; or more, if that lost its end.

    Raises
    ------
    SourceError
        The file has no labels, or labels of another number of examples.
    """
    try:
        labels = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise SourceError(f"{path}: is not a complete .npy file of labels ({error})") from error
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iub" or labels.ndim == 0:
        raise SourceError(f"{path}: expected an array of integer labels in a .npy file")
    if len(labels) != n_examples and not (may_be_more and len(labels) > n_examples):
        raise SourceError(
            f"{path}: has {len(labels)} labels, but {Path(of)} holds {n_examples} examples: they "
            "were not written together"
        )
    return labels
