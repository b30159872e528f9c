"""Merges several compressed files into one."""

import os
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import zip_longest

from lossyless.atomic import replacing
from lossyless.files.format import ContainerError, Header
from lossyless.files.labels import labels_of
from lossyless.files.scan import Layout
from lossyless.files.writer import FileWriter

SAME = {"fingerprint": "entropy model", "codec": "codec", "shape": "shape"}


def merge_files(paths: Sequence[str | os.PathLike], out: str | os.PathLike) -> int:
    """Concatenate the examples of files into one file and return the number of examples.

    Payloads are copied without decoding, in constant memory, and every checksum is verified.
    Entries of `meta` are kept if all files agree. Labels, names and `classes` are dropped, with a
    warning, unless all files have them. Missing shards of a data set give a warning, too.

    Raises ContainerError if a file is damaged or is `out`, or if its model, shape, list of classes
    or shape of labels differs from the others'.
    """
    if not paths:
        raise ValueError("no files to merge")
    for path in paths:
        if os.path.exists(path) and os.path.exists(out) and os.path.samefile(path, out):
            raise ContainerError(
                f"{out}: is one of the files to merge, and would be overwritten: choose another "
                "name for the result"
            )
    with ExitStack() as stack:
        layouts = []
        for path in paths:
            layouts.append(Layout(path))
            stack.callback(layouts[-1].close)
        header = _common_header(layouts)
        _check_classes(layouts)
        file = stack.enter_context(replacing(out))
        writer = FileWriter(file, header)
        for layout in layouts:
            for chunk in layout.chunks:
                body = layout.read_body(chunk)
                labels = body.labels if header.has_labels else b""
                names = body.names if header.has_names else b""
                writer.add(body.payload, chunk.n_examples, labels, names)
        return writer.finish().n_examples


def _common_header(layouts: list[Layout]) -> Header:
    first = layouts[0].header
    meta = dict(first.meta)
    for layout in layouts[1:]:
        for name, meaning in SAME.items():
            if getattr(layout.header, name) != getattr(first, name):
                raise ContainerError(
                    f"{layout.name}: cannot be merged with {layouts[0].name}: its {meaning} "
                    "differs. Only files from the same model can be merged."
                )
        other = layout.header.meta
        meta = {k: v for k, v in meta.items() if k in other and other[k] == v}
    meta.pop("shard", None)
    _check_shards(layouts)
    flags = {}
    for part in ("labels", "names"):
        without = [layout.name for layout in layouts if not getattr(layout.header, f"has_{part}")]
        if without and len(without) < len(layouts):
            warnings.warn(f"{without[0]}: has no {part}, so the merged file has none", stacklevel=3)
        flags[f"has_{part}"] = not without
    if flags["has_labels"]:
        _check_label_shapes([layout for layout in layouts if layout.n_examples])
    return Header(first.codec, first.fingerprint, first.shape, meta, **flags)


def _check_shards(layouts: list[Layout]) -> None:
    """Warn if the files are not all the shards of a data set, in order."""
    shards = [layout.header.meta.get("shard") for layout in layouts]
    if all(shards) and shards != [[k + 1, shards[0][1]] for k in range(shards[0][1])]:
        listed = ", ".join(f"{k}/{n}" for k, n in shards)
        warnings.warn(f"shards are missing, repeated or out of order: {listed}", stacklevel=4)


def _check_label_shapes(layouts: list[Layout]) -> None:
    shapes = [labels_of(layout, max_chunks=1).shape[1:] for layout in layouts]
    for layout, shape in zip(layouts, shapes, strict=True):
        if shape != shapes[0]:
            raise ContainerError(
                f"{layout.name}: cannot be merged with {layouts[0].name}: it has labels of shape "
                f"{[*shape]} rather than {[*shapes[0]]}"
            )


def _check_classes(layouts: list[Layout]) -> None:
    """Check that an index means the same class in all files that list their classes."""
    classes = {layout.name: layout.header.meta.get("classes") for layout in layouts}
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
