"""Several files to one."""

import os
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from lossyless.container import ContainerError, ContainerReader, ContainerWriter, Header
from lossyless.container.format import NO_LABELS, UNKNOWN_LABELS

SAME = ("fingerprint", "codec", "shape", "dtype", "sections")


def merge_files(
    paths: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    *,
    commit_labels: Callable[[], int] | None = None,
) -> int:
    """Write the examples of files, one file after the other, into one; their number.

    Nothing is coded again, memory is constant, and every chunk's checksum is verified. Of `meta`
    what all files agree on is kept; `classes` must be the same in all files that have them.

    Parameters
    ----------
    paths : at least one.
    out : none of them: a file is not there twice for an error to spare one.
    commit_labels : as for `write_features`, of the labels of all examples. Without it, they are
        unknown, unless all files say that they have none.

    Raises
    ------
    ValueError
        There is no file to merge.
    ContainerError
        A file is damaged, or of another model, shape, tables or classes than the others; or is
        `out`.
    """
    if not paths:
        raise ValueError("no files to merge")
    paths = [Path(path) for path in paths]
    _check_out(Path(out), paths)
    header = _common_header(paths)
    have_labels = False
    with ContainerWriter(
        out,
        fingerprint=header.fingerprint,
        codec=header.codec,
        shape=header.shape,
        dtype=header.dtype,
        meta=header.meta,
        sections=header.sections,
    ) as writer:
        for path in paths:
            with ContainerReader(path, fingerprint=header.fingerprint) as reader:
                have_labels |= reader.labels_checksum != NO_LABELS
                for payload, n_examples in reader:
                    writer.add(payload, n_examples)
        if commit_labels is not None:
            writer.labels_checksum = commit_labels()
        else:
            writer.labels_checksum = UNKNOWN_LABELS if have_labels else NO_LABELS
    return writer.n_examples


def _check_out(out: Path, paths: list[Path]) -> None:
    for path in paths:
        if path.exists() and out.exists() and path.samefile(out):
            raise ContainerError(
                f"{out}: is one of the files to merge, and would be overwritten: choose another "
                "name for the result"
            )


def _common_header(paths: list[Path]) -> Header:
    """Header of the first file, with the part of `meta` that all share."""
    common = _header(paths[0])
    classes = {paths[0]: common.meta.get("classes")}
    for path in paths[1:]:
        header = _header(path)
        for name in SAME:
            if getattr(header, name) != getattr(common, name):
                raise ContainerError(
                    f"{path}: cannot be merged with {paths[0]}: its {_difference(name)} differs. "
                    "Merge files of one model."
                )
        classes[path] = header.meta.get("classes")
        shared = {k: v for k, v in common.meta.items() if k in header.meta and header.meta[k] == v}
        common.meta.clear()
        common.meta.update(shared)
    _check_classes(classes)
    return common


def _check_classes(classes: dict[Path, Any]) -> None:
    """Class 3 must be the same one in all files that name their classes."""
    named = [(path, names) for path, names in classes.items() if names is not None]
    for path, names in named[1:]:
        first, expected = named[0]
        if names != expected:
            raise ContainerError(
                f"{path}: cannot be merged with {first}: its classes differ"
                f"{_first_difference(names, expected)}, and labels are numbers of classes. "
                "Compress both from folders with the same classes, or without labels."
            )


def _first_difference(names: Any, expected: Any) -> str:
    if not (isinstance(names, list) and isinstance(expected, list)):
        return ""
    pairs = enumerate(zip_longest(names, expected))
    i, (found, other) = next((i, pair) for i, pair in pairs if pair[0] != pair[1])
    return f", class {i} is {found!r} rather than {other!r}"


def _header(path: Path) -> Header:
    with ContainerReader(path) as reader:
        return reader.header


def _difference(name: str) -> str:
    return {"fingerprint": "entropy model", "sections": "adapted tables"}.get(name, name)
