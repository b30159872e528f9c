"""Several files to one."""

import os
from collections.abc import Sequence
from pathlib import Path

from lossyless.container import ContainerError, ContainerReader, ContainerWriter, Header

SAME = ("fingerprint", "codec", "shape", "dtype", "sections")


def merge_files(paths: Sequence[str | os.PathLike], out: str | os.PathLike) -> int:
    """Write the examples of files, one file after the other, into one; their number.

    Nothing is coded again, memory is constant, and every chunk's checksum is verified. Of `meta`
    what all files agree on is kept. `out` may be one of the files.

    Raises
    ------
    ValueError
        There is no file to merge.
    ContainerError
        A file is damaged, or of another model, shape or tables than the first.
    """
    if not paths:
        raise ValueError("no files to merge")
    header = _common_header([Path(path) for path in paths])
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
                for payload, n_examples in reader:
                    writer.add(payload, n_examples)
    return writer.n_examples


def _common_header(paths: list[Path]) -> Header:
    """Header of the first file, with the part of `meta` that all share."""
    common = _header(paths[0])
    for path in paths[1:]:
        header = _header(path)
        for name in SAME:
            if getattr(header, name) != getattr(common, name):
                raise ContainerError(
                    f"{path}: cannot be merged with {paths[0]}: its {_difference(name)} differs. "
                    "Merge files of one model, written with adapt=False."
                )
        shared = {k: v for k, v in common.meta.items() if k in header.meta and header.meta[k] == v}
        common.meta.clear()
        common.meta.update(shared)
    return common


def _header(path: Path) -> Header:
    with ContainerReader(path) as reader:
        return reader.header


def _difference(name: str) -> str:
    return {"fingerprint": "entropy model", "sections": "adapted tables"}.get(name, name)
