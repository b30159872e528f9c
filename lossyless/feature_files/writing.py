"""Features to files."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lossyless.coding.payloads import CodingError
from lossyless.container import ContainerWriter
from lossyless.feature_files.codecs import MAX_CHUNK_VALUES, ChunkCodec, Codec, chunk_codec
from lossyless.parallel import ordered_map
from lossyless.regrouping import regroup

CHUNK_SIZE = 4096


@dataclass(frozen=True)
class Written:
    """What was written: totals of a file."""

    n_examples: int
    n_bytes: int


def write_features(
    batches: Iterable[Tensor | NDArray],
    path: str | os.PathLike,
    codec: Codec,
    *,
    chunk_size: int | None = None,
    n_workers: int | None = None,
    meta: dict[str, Any] | None = None,
    commit_labels: Callable[[], int] | None = None,
) -> Written:
    """Compress features into a file, atomically and in constant memory.

    The file's bytes (but for an id drawn at random) depend on neither `n_workers` nor how the
    examples are cut into batches.

    Parameters
    ----------
    batches : features [b, z_dim] of any floating type, on any device; b may differ. Whoever makes
        them may reuse their memory.
    path : the file under this name appears when it is complete; an existing one is replaced.
    codec : a rate with its coding tables made; see `Codec`.
    chunk_size : examples that are coded together, by default `CHUNK_SIZE`, but at most
        `MAX_CHUNK_VALUES` values. Larger chunks are a little smaller, smaller ones make access to
        single examples faster.
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
        "codec": codec.format_name,
        "shape": (codec.z_dim,),
        "meta": meta,
    }
    chunks = chunk_codec(codec)
    prepared = _prepared(batches, path, codec, chunks, chunk_size)
    with ContainerWriter(path, **header) as writer:
        _add_all(writer, prepared, chunks, n_workers)
        if commit_labels is not None:
            writer.labels_checksum = commit_labels()
    return Written(writer.n_examples, writer.n_bytes)


def _add_all(
    writer: ContainerWriter,
    prepared: Iterable[tuple[int, Any]],
    chunks: ChunkCodec,
    n_workers: int | None,
) -> None:
    def encode(chunk: tuple[int, Any]) -> tuple[bytes, int]:
        start, rows = chunk
        with _naming_examples(writer.path, start, rows):
            return chunks.encode(rows), len(rows)

    n_workers = n_workers if chunks.is_parallel else 1
    with contextlib.closing(ordered_map(encode, prepared, n_workers)) as coded:
        for payload, n in coded:
            writer.add(payload, n)


def _prepared(
    batches: Iterable[Tensor | NDArray],
    path: Path,
    codec: Codec,
    chunks: ChunkCodec,
    chunk_size: int,
) -> Iterator[tuple[int, Any]]:
    """First example of each chunk, and what the first half of the codec makes of it."""
    start = 0
    for z in regroup(_to_tensors(batches, chunk_size, codec.z_dim), chunk_size):
        with _naming_examples(path, start, z):
            rows = chunks.prepare(z)
        yield start, rows
        start += len(z)


@contextlib.contextmanager
def _naming_examples(path: Path, start: int, rows: Tensor | NDArray) -> Iterator[None]:
    """Errors of coding rows [n, D] say which examples of the file they are."""
    try:
        yield
    except CodingError as error:
        where = f"examples {start} to {start + len(rows) - 1}"
        # numbers of cells, which worker processes code, are finite; features are tensors
        invalid = ~rows.isfinite() if isinstance(rows, Tensor) else np.zeros(rows.shape, bool)
        if invalid.any():
            row, column = invalid.nonzero()[0].tolist()
            value = float(rows[row, column])
            where += f", first {value} in column {column} of example {start + row}"
        raise CodingError(f"{path}: {where}: {error}") from error


def _to_tensors(batches: Iterable[Tensor | NDArray], max_rows: int, z_dim: int) -> Iterator[Tensor]:
    """Batches as float32 [n <= max_rows, z_dim]: of memory-mapped ones, no more is read at once."""
    for batch in batches:
        _check_batch(batch, z_dim)
        for start in range(0, len(batch), max_rows):
            yield to_tensor(batch[start : start + max_rows])


def _check_batch(batch: Tensor | NDArray, z_dim: int) -> None:
    is_tensor = isinstance(batch, Tensor)
    is_float = batch.is_floating_point() if is_tensor else np.issubdtype(batch.dtype, np.floating)
    if batch.ndim != 2 or batch.shape[1] != z_dim or not is_float:
        raise CodingError(
            f"expected batches of floats [b, {z_dim}], found {batch.dtype} {list(batch.shape)}"
        )


def to_tensor(rows: Tensor | NDArray) -> Tensor:
    """The same numbers as float32, without a gradient.

    Raises CodingError for complex numbers and masked ones, which floats cannot tell.
    """
    is_tensor = isinstance(rows, Tensor)
    if rows.is_complex() if is_tensor else np.iscomplexobj(rows):
        raise CodingError(f"expected real features, found {rows.dtype} {list(rows.shape)}")
    if np.ma.is_masked(rows):
        raise CodingError("expected features without a mask: fill or leave out what is masked")
    if is_tensor:
        return rows.detach().float()
    return torch.from_numpy(np.array(rows, np.float32))  # a copy: arrays may be read-only
