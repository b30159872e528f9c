"""Labels in the chunks of compressed files."""

import os
import zlib
from collections.abc import Mapping, Set
from contextlib import closing
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lossyless.coding.payloads import read_varint, write_varint
from lossyless.files.format import Header
from lossyless.files.scan import Layout


def as_array(labels: Any) -> NDArray:
    """The values [N, ...] of labels: a tensor, an array, a pandas Series or DataFrame, a sequence.

    Raises ValueError for what has no order or is no array of values, such as a set or a dict.
    """
    values = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    is_nested = values.dtype == object and values.size > 0
    if values.ndim == 0 or (is_nested and isinstance(values.flat[0], (Set, Mapping))):
        raise ValueError(
            f"expected labels [N, ...] as an array or a list, found {type(labels).__name__}"
        )
    return values


def pack_labels(labels: NDArray) -> bytes:
    """The bytes of labels [n, ...] at the start of a chunk's body."""
    file = BytesIO()
    np.save(file, labels, allow_pickle=False)
    packed = zlib.compress(file.getvalue())
    return write_varint(len(packed)) + packed


def split_body(body: bytes, header: Header) -> tuple[bytes, bytes]:
    """Labels, as `pack_labels` made them, and payload of a chunk's body."""
    if not header.has_labels:
        return b"", body
    length, start = read_varint(body, 0)
    return body[: start + length], body[start + length :]


def read_labels(source: str | os.PathLike | bytes) -> NDArray | None:
    """Labels [N, ...] of all examples of a file, or None if it has none; no codec is needed."""
    with closing(Layout(source)) as layout:
        return labels_of(layout)


def labels_of(layout: Layout) -> NDArray | None:
    """Labels [n, ...] of the (intact) chunks of an open file, or None if it has none."""
    if not layout.header.has_labels:
        return None
    parts = []
    for chunk in layout.chunks:
        packed, _ = split_body(layout.read_body(chunk), layout.header)
        _, start = read_varint(packed, 0)
        parts.append(np.load(BytesIO(zlib.decompress(packed[start:])), allow_pickle=False))
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


class LabelQueue:
    """Buffers labels that arrive in batches and releases them in chunks."""

    def __init__(self):
        self._parts: list[NDArray] = []

    def put(self, labels: NDArray) -> None:
        self._parts.append(labels.copy())  # batches may reuse their memory

    def take(self, n: int) -> NDArray:
        """Labels of the next n examples."""
        if len(self._parts) > 1 or len(self._parts[0]) > n:
            labels = np.concatenate(self._parts)
            self._parts = [labels[n:]]
            return labels[:n]
        return self._parts.pop()
