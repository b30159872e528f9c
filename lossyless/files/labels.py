"""Labels and names of the examples in the chunks of compressed files."""

import json
import zlib
from collections.abc import Mapping, Set
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def as_array(values: Any, what: str = "labels") -> NDArray:
    """Convert a tensor, an array, a pandas Series or DataFrame, or a sequence to an array [N, ...].

    Raises ValueError, naming `what`, for a scalar, a set, a dict, or a sequence of sets or dicts.
    """
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    is_nested = array.dtype == object and array.size > 0
    if array.ndim == 0 or (is_nested and isinstance(array.flat[0], (Set, Mapping))):
        raise ValueError(
            f"expected {what} [N, ...] as an array or a list, found {type(values).__name__}"
        )
    return array


def as_strings(names: Any) -> list[str]:
    """Convert a sequence of names to a list. Raises ValueError unless all are strings."""
    array = as_array(names, "names")
    others = [name for name in array.flat if not isinstance(name, str)]
    if array.ndim != 1 or others:
        raise ValueError(f"expected names [N] as strings, found {[*array.shape]} {others[:1]}")
    return array.tolist()


def pack_labels(labels: list[NDArray]) -> bytes:
    """Return the part of a chunk's body that stores the labels [...] of each example."""
    file = BytesIO()
    np.save(file, np.array(labels), allow_pickle=False)
    return zlib.compress(file.getvalue())


def pack_names(names: list[str]) -> bytes:
    """Return the part of a chunk's body that stores the name of each example."""
    return zlib.compress(json.dumps(names, separators=(",", ":")).encode())


def unpack_labels(packed: bytes) -> NDArray:
    """Unpack the labels [n, ...] packed by `pack_labels`."""
    return np.load(BytesIO(zlib.decompress(packed)), allow_pickle=False)


def unpack_names(packed: bytes) -> list[str]:
    """Unpack the names packed by `pack_names`."""
    return json.loads(zlib.decompress(packed))
