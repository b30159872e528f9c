"""Labels and names of the examples, in the chunks of compressed files."""

import json
import os
import zlib
from collections.abc import Iterator, Mapping, Set
from contextlib import closing
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lossyless.coding.payloads import read_varint
from lossyless.files.format import Header
from lossyless.files.scan import Layout


def as_array(labels: Any, what: str = "labels") -> NDArray:
    """The values [N, ...] of labels: a tensor, an array, a pandas Series or DataFrame, a sequence.

    Raises ValueError, naming `what`, for what has no order or is no array of values, such as a set
    or a dict.
    """
    values = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    is_nested = values.dtype == object and values.size > 0
    if values.ndim == 0 or (is_nested and isinstance(values.flat[0], (Set, Mapping))):
        raise ValueError(
            f"expected {what} [N, ...] as an array or a list, found {type(labels).__name__}"
        )
    return values


def as_strings(names: Any) -> NDArray:
    """The array [N] of names. Raises ValueError unless they are strings."""
    values = as_array(names, "names")
    found = [value for value in values.flat if not isinstance(value, str)]
    if values.ndim != 1 or found:
        raise ValueError(f"expected names [N] as strings, found {[*values.shape]} {found[:1]}")
    return values


def pack_labels(labels: NDArray) -> bytes:
    """The bytes of labels [n, ...] in a chunk's body."""
    file = BytesIO()
    np.save(file, labels, allow_pickle=False)
    return zlib.compress(file.getvalue())


def pack_names(names: NDArray) -> bytes:
    """The bytes of names, an array of strings [n], in a chunk's body."""
    return zlib.compress(json.dumps(names.tolist(), separators=(",", ":")).encode())


class Body(NamedTuple):
    """Parts of a chunk's body; labels and names are empty unless the header announces them."""

    labels: bytes
    names: bytes
    payload: bytes


def split_body(body: bytes, header: Header) -> Body:
    parts = []
    for is_there in (header.has_labels, header.has_names):
        length, start = read_varint(body, 0) if is_there else (0, 0)
        parts.append(body[start : start + length])
        body = body[start + length :]
    return Body(*parts, body)


def read_labels(source: str | os.PathLike | bytes) -> NDArray | None:
    """Labels [N, ...] of all examples of a file, or None if it has none; no codec is needed."""
    with closing(Layout(source)) as layout:
        return labels_of(layout)


def read_names(source: str | os.PathLike | bytes) -> list[str] | None:
    """Names of all examples of a file, or None if it has none; no codec is needed."""
    with closing(Layout(source)) as layout:
        return names_of(layout)


def labels_of(layout: Layout) -> NDArray | None:
    """Labels [n, ...] of the (intact) chunks of an open file, or None if it has none."""
    if not layout.header.has_labels:
        return None
    packed = [zlib.decompress(body.labels) for body in _bodies(layout)]
    parts = [np.load(BytesIO(labels), allow_pickle=False) for labels in packed]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def names_of(layout: Layout) -> list[str] | None:
    """Names of the examples in the (intact) chunks of an open file, or None if it has none."""
    if not layout.header.has_names:
        return None
    return [n for body in _bodies(layout) for n in json.loads(zlib.decompress(body.names))]


def _bodies(layout: Layout) -> Iterator[Body]:
    for chunk in layout.chunks:
        yield split_body(layout.read_body(chunk), layout.header)


class RowQueue:
    """Buffers arrays [b, ...] that arrive in batches and releases them in chunks."""

    def __init__(self):
        self._parts: list[NDArray] = []

    def put(self, rows: NDArray) -> None:
        self._parts.append(rows.copy())  # batches may reuse their memory

    def take(self, n: int) -> NDArray:
        """The next n rows."""
        if len(self._parts) > 1 or len(self._parts[0]) > n:
            rows = np.concatenate(self._parts)
            self._parts = [rows[n:]]
            return rows[:n]
        return self._parts.pop()
