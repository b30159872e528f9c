"""Labels of compressed examples: int64 in a .npy file, made of integers of any type."""

import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lossyless.atomic import replacing
from lossyless.container.format import NO_LABELS, UNKNOWN_LABELS
from lossyless.hub import SourceError
from lossyless.hub.files import check_distinct


def to_labels(labels: Iterable[Any]) -> NDArray[np.int64]:
    """Labels, int64 [N, ...], of Python or numpy integers or tensors.

    Raises
    ------
    SourceError
        They are no integers, beyond int64, or of different shapes.
    """
    labels = labels.cpu().numpy() if isinstance(labels, Tensor) else labels
    if not isinstance(labels, Iterable) or getattr(labels, "ndim", 1) == 0:
        raise SourceError(f"expected labels [N, ...], found {type(labels).__name__} {labels!r}")
    if isinstance(labels, np.ndarray):
        return _to_int64(labels)
    labels = [_to_int64(y.numpy() if isinstance(y, Tensor) else np.asarray(y)) for y in labels]
    _check_shapes(labels)
    return np.stack(labels) if labels else np.empty(0, np.int64)


def join_labels(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Labels [N, ...] of the labels of batches."""
    _check_shapes([part[0] for part in parts])
    return np.concatenate(parts) if parts else to_labels(())


def _to_int64(labels: np.ndarray) -> NDArray[np.int64]:
    if labels.dtype.kind not in "iub":
        raise SourceError(
            f"expected integer labels, found {_describe(labels)}. Leave `label_file` out to "
            "compress without labels."
        )
    if labels.dtype == np.uint64 and labels.max(initial=0) > np.iinfo(np.int64).max:
        raise SourceError(f"expected labels within int64, found {labels.max()}")
    return labels.astype(np.int64, copy=False)


def _check_shapes(labels: list[np.ndarray]) -> None:
    """That labels [...] of examples go into one array."""
    shapes = {y.shape for y in labels}
    if len(shapes) > 1:
        raise SourceError(f"expected labels of one shape, found {sorted(shapes)}")


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
) -> NDArray[np.int64]:
    """Labels [n_examples, ...] of the examples in the file `of`; or more, if that lost its end.

    The paper's code wrote them as uint16, earlier versions of this code as they were given.

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
    return _to_int64(labels)
