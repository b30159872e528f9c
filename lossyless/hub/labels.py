"""Labels of compressed examples: integers of any type in a .npy file, kept exactly."""

import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from lossyless.container.format import NO_LABELS, UNKNOWN_LABELS
from lossyless.files import replacing
from lossyless.hub.errors import SourceError
from lossyless.hub.files import check_distinct


def to_labels(labels: Iterable[Any]) -> np.ndarray:
    """Integers [N, ...] of labels that are Python or numpy integers or tensors.

    Python integers become int64; others keep their type.
    """
    labels = labels.cpu().numpy() if isinstance(labels, Tensor) else labels
    if not isinstance(labels, Iterable) or getattr(labels, "ndim", 1) == 0:
        raise SourceError(f"expected labels [N, ...], found {type(labels).__name__} {labels!r}")
    if not isinstance(labels, np.ndarray):
        labels = [y.numpy() if isinstance(y, Tensor) else np.asarray(y) for y in labels]
        _check_alike(labels)
        labels = np.stack(labels) if labels else np.empty(0, np.int64)
    if labels.dtype.kind not in "iub":
        raise SourceError(
            f"expected integer labels, found {_describe(labels)}. Leave `label_file` out to "
            "compress without labels."
        )
    return labels


def join_labels(parts: list[np.ndarray]) -> np.ndarray:
    """Labels [N, ...] of the labels of batches."""
    _check_alike([part[0] for part in parts])
    return np.concatenate(parts) if parts else to_labels(())


def _check_alike(labels: list[np.ndarray]) -> None:
    """That labels [...] of examples go into one array of integers, if they are integers."""
    shapes = {y.shape for y in labels}
    if len(shapes) > 1:
        raise SourceError(f"expected labels of one shape, found {sorted(shapes)}")
    dtypes = {y.dtype for y in labels}
    are_integers = all(dtype.kind in "iub" for dtype in dtypes)
    if dtypes and are_integers and np.result_type(*dtypes).kind == "f":
        raise SourceError(
            f"labels of the types {', '.join(sorted(map(str, dtypes)))} have no integer type in "
            "common: convert them to one"
        )


def _describe(labels: np.ndarray) -> str:
    has_none = labels.dtype == object and any(y is None for y in labels.flat)
    return "examples without a label" if has_none else f"{labels.dtype}"


def labels_checksum(labels: np.ndarray) -> int:
    """32 bits that tell labels from others: of their type, shape and values."""
    labels = np.ascontiguousarray(labels, labels.dtype.newbyteorder("<"))
    kind = f"{labels.dtype.str} {labels.shape}".encode()
    return zlib.crc32(labels, zlib.crc32(kind))


@contextmanager
def writing_labels(
    path: str | os.PathLike | None, file: str | os.PathLike, labels: Callable[[], np.ndarray]
) -> Iterator[Callable[[], int] | None]:
    """What `write_features` calls to write the labels of `file`, or None without a `path`.

    That `path` can be written is found out at once; there is a complete file under this name, with
    `labels()` [N, ...], once they were committed.

    Raises
    ------
    SourceError
        `path` is `file`, also by a link.
    """
    if path is None:
        yield None
        return
    check_distinct([file, path])
    with ExitStack() as stack:
        npy = stack.enter_context(replacing(path))

        def commit() -> int:
            values = labels()
            np.save(npy, values, allow_pickle=False)
            stack.close()
            return labels_checksum(values)

        yield commit


def load_labels(
    path: str | os.PathLike,
    *,
    n_examples: int,
    of: str | os.PathLike,
    checksum: int = UNKNOWN_LABELS,
    may_be_more: bool = False,
) -> np.ndarray:
    """Labels [n_examples, ...] of the examples in the file `of`; or more, if that lost its end.

    checksum : what `of` says of its labels, see `ContainerWriter.labels_checksum`.

    Raises
    ------
    SourceError
        The file has no labels, or not those of `of`.
    """
    if checksum == NO_LABELS:
        raise SourceError(f"{path}: belongs to another file: {Path(of)} was written without labels")
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
    if checksum not in (UNKNOWN_LABELS, labels_checksum(labels)):
        raise SourceError(
            f"{path}: are not the labels that were written with {Path(of)}: their checksum "
            "differs. They are of another data set, changed or damaged."
        )
    return labels
