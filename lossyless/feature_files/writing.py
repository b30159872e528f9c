"""Features to files."""

import contextlib
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lossyless.coders import ColumnCoder
from lossyless.container import ContainerReader, ContainerWriter
from lossyless.feature_files.codecs import (
    MAX_CHUNK_VALUES,
    ChunkCodec,
    Codec,
    SymbolCodec,
    adapt_error,
    chunk_codec,
)
from lossyless.feature_files.workers import ordered_map
from lossyless.payloads import CodingError
from lossyless.table_refitting import SymbolCounts, encode_tables, refit

TABLES = "tables"  # section of the header
CHUNK_SIZE = 4096


@dataclass(frozen=True)
class Written:
    """What was written: totals of a file."""

    n_examples: int
    n_bytes: int
    is_adapted: bool

    @property
    def bits_per_example(self) -> float:
        return 8 * self.n_bytes / self.n_examples if self.n_examples else math.nan


def write_features(
    batches: Iterable[Tensor | NDArray],
    path: str | os.PathLike,
    codec: Codec,
    *,
    chunk_size: int | None = None,
    adapt: bool = False,
    n_workers: int | None = None,
    meta: dict[str, Any] | None = None,
    commit_labels: Callable[[], int] | None = None,
) -> Written:
    """Compress features into a file, atomically and in constant memory.

    The file's bytes (but for an id drawn at random) depend on neither `n_workers` nor how the
    examples are cut into batches.

    Parameters
    ----------
    batches : features [b, z_dim] of any floating type, on any device; b may differ.
    path : the file under this name appears when it is complete; an existing one is replaced.
    codec : a rate with its coding tables made; see `Codec` and `SymbolCodec`.
    chunk_size : examples that are coded together, by default `CHUNK_SIZE`, but at most
        `MAX_CHUNK_VALUES` values. Larger chunks are a little smaller, smaller ones make access to
        single examples faster.
    adapt : fit the tables to these features and store them in the file, unless that is larger. It
        takes about three times the time. Needs a `SymbolCodec`.
    n_workers : processes that run the entropy coder; by default one per core.
    meta : anything that JSON can hold, for the header.
    commit_labels : called when all examples are coded, right before the file gets its name, to
        write their labels; returns their checksum, 32 bits, which the file keeps.

    Raises
    ------
    CodingError
        The features have the wrong shape or cannot be coded: NaN, infinite.
    WorkerError
        A worker process died.
    """
    path = Path(path)
    largest = MAX_CHUNK_VALUES // codec.z_dim
    if chunk_size is None:
        chunk_size = min(CHUNK_SIZE, largest)
    if not 1 <= chunk_size <= largest:
        raise ValueError(f"chunk_size is {chunk_size}, not in [1, {largest}]")
    header = {
        "fingerprint": codec.fingerprint(),
        "codec": codec.codec,
        "shape": (codec.z_dim,),
        "meta": meta,
    }
    if adapt:
        return _write_adapted(
            batches, path, codec, chunk_size, n_workers, header, commit_labels=commit_labels
        )
    chunks = chunk_codec(codec)
    prepared = _prepared(batches, path, codec, chunks, chunk_size)
    with ContainerWriter(path, **header) as writer:
        _add_all(writer, prepared, chunks, n_workers)
        if commit_labels is not None:
            writer.labels = commit_labels()
    return Written(writer.n_examples, writer.n_bytes, is_adapted=False)


def _write_adapted(
    batches: Iterable[Tensor | NDArray],
    path: Path,
    codec: Codec,
    chunk_size: int,
    n_workers: int | None,
    header: dict[str, Any],
    *,
    commit_labels: Callable[[], int] | None,
) -> Written:
    """Codes with the codec's tables, then again with those fitted; the smaller file stays."""
    if not isinstance(codec, SymbolCodec):
        raise TypeError(adapt_error(codec))
    base = codec.coder()
    counts = SymbolCounts(codec.z_dim)
    chunks = chunk_codec(codec)
    prepared = _prepared(batches, path, codec, chunks, chunk_size)
    kept: ContainerWriter
    with contextlib.ExitStack() as stack:
        kept = fixed = stack.enter_context(ContainerWriter(path, **header))
        _add_all(fixed, _counted(prepared, counts), chunks, n_workers)
        tables = refit(counts, base.tables) if counts.n_examples else base.tables
        if tables.fingerprint() != base.tables.fingerprint():
            fixed.finish()
            spool = stack.enter_context(ContainerReader(fixed.temporary))
            sections = {TABLES: encode_tables(tables, base.tables)}
            adapted = stack.enter_context(ContainerWriter(path, **header, sections=sections))
            _transcode(spool, adapted, base, ColumnCoder(tables), n_workers)
            adapted.finish()
            kept, other = (adapted, fixed) if adapted.n_bytes < fixed.n_bytes else (fixed, adapted)
            other.abandon()
        if commit_labels is not None:
            kept.labels = commit_labels()
    return Written(kept.n_examples, kept.n_bytes, is_adapted=kept is not fixed)


def _add_all(
    writer: ContainerWriter,
    prepared: Iterable[Any],
    chunks: ChunkCodec,
    n_workers: int | None,
) -> None:
    def encode(rows: Any) -> tuple[bytes, int]:
        return chunks.encode(rows), len(rows)

    n_workers = n_workers if chunks.is_parallel else 1
    with contextlib.closing(ordered_map(encode, prepared, n_workers)) as coded:
        for payload, n in coded:
            writer.add(payload, n)


def _transcode(
    spool: ContainerReader,
    writer: ContainerWriter,
    old: ColumnCoder,
    new: ColumnCoder,
    n_workers: int | None,
) -> None:
    """Code the chunks of a file again, into another."""

    def transcode(i: int) -> tuple[bytes, int]:
        n = spool.chunk_sizes[i]
        return new.encode(old.decode(spool.read(i), n)), n

    with contextlib.closing(ordered_map(transcode, range(spool.n_chunks), n_workers)) as coded:
        for payload, n in coded:
            writer.add(payload, n)


def _prepared(
    batches: Iterable[Tensor | NDArray],
    path: Path,
    codec: Codec,
    chunks: ChunkCodec,
    chunk_size: int,
) -> Iterator[Any]:
    """What the first half of the codec makes of each chunk."""
    start = 0
    for z in regroup(batches, chunk_size, codec.z_dim):
        try:
            yield chunks.prepare(z)
        except CodingError as error:
            raise CodingError(
                f"{path}: examples {start} to {start + len(z) - 1}: {error}"
            ) from error
        start += len(z)


def _counted(symbols: Iterable[NDArray], counts: SymbolCounts) -> Iterator[NDArray]:
    for chunk in symbols:
        counts.add(chunk)
        yield chunk


def regroup(batches: Iterable[Tensor | NDArray], size: int, z_dim: int) -> Iterator[Tensor]:
    """The same examples in chunks [size, z_dim]; the last one may be smaller.

    A chunk is valid until the next one is asked for. Batches may be reused by whoever gives them.
    """
    chunk: Tensor | None = None  # of which `n` rows are filled
    n = 0
    for batch in batches:
        _check_batch(batch, z_dim)
        start = 0
        while start < len(batch):
            stop = min(start + size - n, len(batch))
            rows = to_tensor(batch[start:stop])
            start = stop
            if len(rows) == size:  # nothing to join
                yield rows
                continue
            if chunk is None:
                chunk = torch.empty(size, z_dim, device=rows.device)
            chunk[n : n + len(rows)] = rows
            n += len(rows)
            if n == size:
                yield chunk
                n = 0
    if n:
        yield chunk[:n]


def _check_batch(batch: Tensor | NDArray, z_dim: int) -> None:
    is_tensor = isinstance(batch, Tensor)
    is_float = batch.is_floating_point() if is_tensor else np.issubdtype(batch.dtype, np.floating)
    if batch.ndim != 2 or batch.shape[1] != z_dim or not is_float:
        raise CodingError(
            f"expected batches of floats [b, {z_dim}], found {batch.dtype} {list(batch.shape)}"
        )


def to_tensor(rows: Tensor | NDArray) -> Tensor:
    """The same numbers as float32, without a gradient."""
    if isinstance(rows, Tensor):
        return rows.detach().float()
    return torch.from_numpy(np.array(rows, np.float32))  # a copy: arrays may be read-only
