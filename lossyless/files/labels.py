"""Labels and names of the examples in the chunks of compressed files."""

import json
import os
import zlib
from collections.abc import Mapping, Set
from contextlib import closing
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lossyless.files.scan import Layout


def as_array(values: Any, what: str = "labels") -> NDArray:
    """The values [N, ...] of a tensor, an array, a pandas Series or DataFrame, or a sequence.

    Raises ValueError, naming `what`, for a set, a dict, and anything else that is not an array.
    """
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    is_nested = array.dtype == object and array.size > 0
    if array.ndim == 0 or (is_nested and isinstance(array.flat[0], (Set, Mapping))):
        raise ValueError(
            f"expected {what} [N, ...] as an array or a list, found {type(values).__name__}"
        )
    return array


def as_strings(names: Any) -> list[str]:
    """A sequence of names as a list. Raises ValueError unless they are strings."""
    array = as_array(names, "names")
    others = [name for name in array.flat if not isinstance(name, str)]
    if array.ndim != 1 or others:
        raise ValueError(f"expected names [N] as strings, found {[*array.shape]} {others[:1]}")
    return array.tolist()


def pack_labels(labels: list[NDArray]) -> bytes:
    """The part of a chunk's body that stores the labels [...] of each example."""
    file = BytesIO()
    np.save(file, np.array(labels), allow_pickle=False)
    return zlib.compress(file.getvalue())


def pack_names(names: list[str]) -> bytes:
    """The part of a chunk's body that stores the name of each example."""
    return zlib.compress(json.dumps(names, separators=(",", ":")).encode())


def read_labels(source: str | os.PathLike | bytes) -> NDArray | None:
    """Labels [N, ...] of all examples of a file, or None if it has none; no codec is needed."""
    with closing(Layout(source)) as layout:
        return labels_of(layout)


def read_names(source: str | os.PathLike | bytes) -> list[str] | None:
    """Names of all examples of a file, or None if it has none; no codec is needed."""
    with closing(Layout(source)) as layout:
        return names_of(layout)


def labels_of(layout: Layout, max_chunks: int | None = None) -> NDArray | None:
    """Labels [n, ...] of the first (intact) chunks of an open file, or None if it has none."""
    if not layout.header.has_labels:
        return None
    chunks = layout.chunks[:max_chunks]
    packed = [zlib.decompress(layout.read_body(chunk).labels) for chunk in chunks]
    parts = [np.load(BytesIO(labels), allow_pickle=False) for labels in packed]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def names_of(layout: Layout) -> list[str] | None:
    """Names of the examples in the (intact) chunks of an open file, or None if it has none."""
    if not layout.header.has_names:
        return None
    packed = [zlib.decompress(layout.read_body(chunk).names) for chunk in layout.chunks]
    return [name for names in packed for name in json.loads(names)]
