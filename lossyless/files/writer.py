"""Examples to compressed files."""

import contextlib
import itertools
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lossyless.atomic import replacing
from lossyless.base import Codec
from lossyless.coding.payloads import CodingError, write_varint
from lossyless.files.format import (
    UINT32_MAX,
    ContainerError,
    Header,
    chunk_head,
    end_bytes,
)
from lossyless.files.labels import RowQueue, as_array, as_strings, pack_labels, pack_names
from lossyless.parallel import ordered_map

CHUNK_SIZE = 4096  # examples, unless they are so large that a chunk would exceed
MAX_CHUNK_VALUES = 1 << 24

Rows = Tensor | NDArray
Batch = Rows | tuple[Rows, Any] | tuple[Rows, Any, Sequence[str] | None]


@dataclass(frozen=True)
class Written:
    """Totals of a written file; `n_label_bytes` of its `n_bytes` hold labels and names."""

    n_examples: int
    n_bytes: int
    n_label_bytes: int = 0


class FileWriter:
    """Writes a compressed file chunk by chunk, in constant memory: `add` chunks, then `finish`.

    Parameters
    ----------
    file : binary file, which is only appended to.
    header : Header
    """

    def __init__(self, file: BinaryIO, header: Header):
        self._file = file
        self._header = header
        self._checksums: list[int] = []
        self.n_examples = self.n_bytes = self.n_label_bytes = 0
        data = header.to_bytes()
        self._seed = zlib.crc32(data[:-4])
        self._write(data)

    def add(self, payload: bytes, n_examples: int, labels: bytes = b"", names: bytes = b"") -> None:
        """Append a chunk of at least one example, with the labels and names that are packed."""
        if (bool(labels), bool(names)) != (self._header.has_labels, self._header.has_names):
            raise ContainerError("a chunk needs labels and names if, and only if, the header says")
        annotations = b"".join(write_varint(len(part)) + part for part in (labels, names) if part)
        body = annotations + payload
        if not 1 <= n_examples <= UINT32_MAX or len(body) > UINT32_MAX:
            raise ContainerError(f"a chunk cannot hold {n_examples} examples, {len(body)} bytes")
        number = len(self._checksums)
        head = chunk_head(number, self.n_examples, n_examples, body, seed=self._seed)
        self._write(head + body)
        self._checksums.append(int.from_bytes(head[-4:], "little"))
        self.n_examples += n_examples
        self.n_label_bytes += len(annotations)

    def finish(self) -> Written:
        """Append the end of the file."""
        self._write(end_bytes(self.n_examples, self._checksums, seed=self._seed))
        return Written(self.n_examples, self.n_bytes, self.n_label_bytes)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self.n_bytes += len(data)


def write_features(
    batches: Iterable[Batch],
    out: str | os.PathLike | BinaryIO,
    codec: Codec,
    *,
    chunk_size: int | None = None,
    n_workers: int | None = None,
    meta: dict[str, Any] | None = None,
    timer: AbstractContextManager = nullcontext(),  # noqa: B008, it has no state
) -> Written:
    """Compress examples into a file, atomically and in constant memory.

    The bytes depend neither on `n_workers` nor on how the examples are cut into batches.

    Parameters
    ----------
    batches : examples z [b, *shape] of any floating type, on any device; or tuples (z, labels)
        or (z, labels, names) with labels [b, ...], numbers of any type, or None, and names, b
        strings, or None. b may differ; the memory of a batch may be reused for the next one.
    out : path, where the complete file appears, replacing an existing one; or a binary file.
    codec : ready to code, for instance a rate with its coding tables.
    chunk_size : examples that are coded together, by default 4096, fewer if they are large. Larger
        chunks are slightly smaller; smaller ones make random access faster.
    n_workers : processes that run the entropy coder; by default one per core.
    meta : anything that JSON can hold, for the header.
    timer : context manager around all work of the codec, with n_workers=1.

    Raises
    ------
    CodingError
        The examples have the wrong shape or cannot be coded, for instance NaN.
    WorkerError
        A worker process died.
    """
    if not hasattr(out, "write"):
        with replacing(out) as file:  # before the first batch, which may be expensive
            return _write(batches, file, os.fspath(out), codec, chunk_size, n_workers, meta, timer)
    name = str(getattr(out, "name", "payload"))
    return _write(batches, out, name, codec, chunk_size, n_workers, meta, timer)


def _write(
    batches: Iterable[Batch],
    file: BinaryIO,
    name: str,
    codec: Codec,
    chunk_size: int | None,
    n_workers: int | None,
    meta: dict[str, Any] | None,
    timer: AbstractContextManager,
) -> Written:
    batches = iter(batches)
    first = next(batches, None)
    z, labels, names = _unpack(first)
    has_labels, has_names = labels is not None, names is not None
    shape = codec.shape or (() if z is None else tuple(z.shape[1:]))
    if chunk_size is None:
        chunk_size = max(1, min(CHUNK_SIZE, MAX_CHUNK_VALUES // max(1, int(np.prod(shape)))))
    if not 1 <= chunk_size <= UINT32_MAX:
        raise ValueError(f"chunk_size is {chunk_size}, expected a positive integer")
    if z is not None:
        batches = itertools.chain([first], batches)
    header = Header(
        codec.format_name, codec.fingerprint(), shape, dict(meta or {}), has_labels, has_names
    )
    labels, names = (RowQueue() if has_some else None for has_some in (has_labels, has_names))
    chunks = rebatch(_tensors(batches, shape, chunk_size, labels, names), chunk_size)
    chunk_coder = _ChunkEncoder(codec, name, timer)
    writer = FileWriter(file, header)
    with contextlib.closing(chunk_coder.encode_all(chunks, n_workers)) as coded:
        for payload, n in coded:
            packed_labels = pack_labels(labels.take(n)) if has_labels else b""
            packed_names = pack_names(names.take(n)) if has_names else b""
            writer.add(payload, n, packed_labels, packed_names)
    return writer.finish()


def rebatch(batches: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """The same rows [..., *shape] in chunks of `size`, on the batches' device; the last is smaller.

    Each chunk owns its memory: batches may reuse theirs.
    """
    chunk: Tensor | None = None
    n = 0  # rows of `chunk` that are filled
    for batch in batches:
        while len(batch):
            if chunk is None:
                chunk, n = batch.new_empty(size, *batch.shape[1:]), 0
            taken, batch = batch[: size - n], batch[size - n :]
            chunk[n : n + len(taken)] = taken
            n += len(taken)
            if n == size:
                yield chunk
                chunk = None
    if chunk is not None:
        yield chunk[:n]


class _ChunkEncoder:
    """Codes chunks, the symbols in worker processes; errors name the file and the examples."""

    def __init__(self, codec: Codec, name: str, timer: AbstractContextManager):
        self.codec, self.name, self.timer = codec, name, timer
        self.coder = codec.coder()

    def encode_all(
        self, chunks: Iterable[Tensor], n_workers: int | None
    ) -> Iterator[tuple[bytes, int]]:
        """Payload and number of examples of each chunk."""
        n_workers = 1 if self.coder is None else n_workers
        return ordered_map(self._encode, self._quantised(chunks), n_workers)

    def _quantised(self, chunks: Iterable[Tensor]) -> Iterator[tuple[int, Tensor | NDArray]]:
        start = 0
        for z in chunks:
            with self._naming_examples(start, z), self.timer:
                symbols = z if self.coder is None else self.codec.quantise(z)
            yield start, symbols
            start += len(z)

    def _encode(self, chunk: tuple[int, Tensor | NDArray]) -> tuple[bytes, int]:
        start, symbols = chunk
        encode = self.codec.compress if self.coder is None else self.coder.encode
        with self._naming_examples(start, symbols), self.timer:
            return encode(symbols), len(symbols)

    @contextlib.contextmanager
    def _naming_examples(self, start: int, rows: Tensor | NDArray) -> Iterator[None]:
        try:
            yield
        except CodingError as error:
            where = f"examples {start} to {start + len(rows) - 1}"
            # symbols are finite, and workers must not use torch
            if isinstance(rows, Tensor) and (invalid := ~rows.isfinite()).any():
                row, *place = invalid.nonzero()[0].tolist()
                value, column = float(rows[row, *place]), ", ".join(map(str, place))
                where += f", first {value} in column {column} of example {start + row}"
            raise CodingError(f"{self.name}: {where}: {error}") from error


def _unpack(batch: Batch | None) -> tuple[Rows | None, Any, Sequence[str] | None]:
    """z, labels and names of a batch, each None if it has none."""
    return (*batch, None)[:3] if isinstance(batch, tuple) else (batch, None, None)


def _tensors(
    batches: Iterable[Batch],
    shape: tuple[int, ...],
    max_rows: int,
    labels: RowQueue | None,
    names: RowQueue | None,
) -> Iterator[Tensor]:
    """Batches as float32 [n <= max_rows, *shape]: memory-mapped arrays are read piece by piece."""
    for batch in batches:
        z, y, batch_names = _unpack(batch)
        is_float = (
            z.is_floating_point()
            if isinstance(z, Tensor)
            else np.issubdtype(np.asarray(z).dtype, np.floating)
        )
        if tuple(z.shape[1:]) != shape or not is_float:
            raise CodingError(
                f"expected batches of floats [b{''.join(f', {n}' for n in shape)}], found "
                f"{z.dtype} {list(z.shape)}"
            )
        y = None if y is None else as_array(y)
        batch_names = None if batch_names is None else as_strings(batch_names)
        for part, queue, values in (("labels", labels, y), ("names", names, batch_names)):
            found = 0 if values is None else len(values)
            if found != (0 if queue is None else len(z)):
                raise ValueError(f"a batch of {len(z)} examples has {found} {part}: all or none")
            if found:
                queue.put(values)
        for start in range(0, len(z), max_rows):
            yield _to_tensor(z[start : start + max_rows])


def _to_tensor(rows: Tensor | NDArray) -> Tensor:
    """The same numbers as float32, without a gradient."""
    if isinstance(rows, Tensor):
        return rows.detach().float()
    return torch.from_numpy(np.array(rows, np.float32))  # a copy: arrays may be read-only
