"""Merges several compressed files into one."""

import os
import warnings
from collections.abc import Iterable
from contextlib import ExitStack
from itertools import zip_longest

from lossyless.atomic import check_distinct, replacing
from lossyless.files.format import ContainerError, Header
from lossyless.files.scan import CompressedFile
from lossyless.files.writer import FileWriter

SAME = {"fingerprint": "entropy model", "codec": "codec", "shape": "shape"}


def merge_files(paths: Iterable[str | os.PathLike], out: str | os.PathLike) -> int:
    """Concatenate the examples of several files into one file; return the number of examples.

    Payloads are copied without decoding, in constant memory, and every checksum is verified.
    Entries of `meta` on which all files agree are kept. Labels, names and `classes` are dropped,
    with a warning, unless all files have them. Shards that are missing, repeated or out of order
    also cause a warning.

    Raises ContainerError if a file is damaged, or if its model, shape, classes or label shape
    differ from those of the others; SameFileError if `out` is one of the files.
    """
    paths = [*paths]
    if not paths:
        raise ValueError("no files to merge")
    check_distinct([out], paths)
    with ExitStack() as stack:
        files = [stack.enter_context(CompressedFile(path)) for path in paths]
        header = _common_header(files)
        _check_classes(files)
        writer = FileWriter(stack.enter_context(replacing(out)), header)
        for file in files:
            for chunk in file.heads:
                body = file.read_body(chunk)
                labels = body.labels if header.has_labels else b""
                names = body.names if header.has_names else b""
                writer.add(body.payload, chunk.n_examples, labels, names)
        return writer.finish().n_examples


def _common_header(files: list[CompressedFile]) -> Header:
    first = files[0].header
    meta = dict(first.meta)
    for file in files[1:]:
        for name, meaning in SAME.items():
            if getattr(file.header, name) != getattr(first, name):
                raise ContainerError(
                    f"{file.name}: cannot be merged with {files[0].name}: its {meaning} "
                    "differs. Only files from the same model can be merged."
                )
        other = file.header.meta
        meta = {k: v for k, v in meta.items() if k in other and other[k] == v}
    meta.pop("shard", None)
    _check_shards(files)
    flags = {}
    for part in ("labels", "names"):
        without = [file.name for file in files if not getattr(file.header, f"has_{part}")]
        if without and len(without) < len(files):
            warnings.warn(f"{without[0]}: has no {part}, so the merged file has none", stacklevel=3)
        flags[f"has_{part}"] = not without
    if flags["has_labels"]:
        _check_label_shapes([file for file in files if file.n_examples])
    return Header(first.codec, first.fingerprint, first.shape, meta, **flags)


def _check_shards(files: list[CompressedFile]) -> None:
    """Warn if shards of a data set are missing, repeated or out of order."""
    shards = [file.header.meta.get("shard") for file in files]
    if all(shards) and shards != [[k + 1, shards[0][1]] for k in range(shards[0][1])]:
        listed = ", ".join(f"{k}/{n}" for k, n in shards)
        warnings.warn(f"shards are missing, repeated or out of order: {listed}", stacklevel=4)


def _check_label_shapes(files: list[CompressedFile]) -> None:
    shapes = [file.labels(max_chunks=1).shape[1:] for file in files]
    for file, shape in zip(files, shapes, strict=True):
        if shape != shapes[0]:
            raise ContainerError(
                f"{file.name}: cannot be merged with {files[0].name}: it has labels of shape "
                f"{[*shape]} rather than {[*shapes[0]]}"
            )


def _check_classes(files: list[CompressedFile]) -> None:
    """Check that an index means the same class in all files that list their classes."""
    classes = {file.name: file.classes for file in files}
    named = [(name, found) for name, found in classes.items() if found is not None]
    if 0 < len(named) < len(classes):
        other = next(name for name, found in classes.items() if found is None)
        warnings.warn(
            f"{other}: lists no classes, so the merged file lists none: its labels may have "
            f"different meanings from those of {named[0][0]}",
            stacklevel=3,
        )
    for name, found in named[1:]:
        first, expected = named[0]
        if found != expected:
            pairs = enumerate(zip_longest(found, expected))
            i, (ours, theirs) = next((i, pair) for i, pair in pairs if pair[0] != pair[1])
            raise ContainerError(
                f"{name}: cannot be merged with {first}: its classes differ: class {i} is {ours!r} "
                f"rather than {theirs!r}. Compress one with the classes of the other (classes=, "
                "--classes)."
            )
