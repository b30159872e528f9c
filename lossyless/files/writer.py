"""Writes examples to compressed files."""

import itertools
import math
import os
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lossyless.atomic import replacing
from lossyless.base import Codec
from lossyless.coding.payloads import CodingError, write_varint
from lossyless.files.format import UINT32_MAX, Header, chunk_head, end_bytes
from lossyless.files.labels import as_array, as_strings, pack_labels, pack_names
from lossyless.parallel import ordered_map

CHUNK_SIZE = 4096  # default number of examples; fewer if they have too many values
MAX_CHUNK_VALUES = 1 << 24

Rows = Tensor | NDArray
Batch = Rows | tuple[Rows, Any] | tuple[Rows, Any, Sequence[str] | None]


@dataclass(frozen=True)
class Written:
    """Totals for a written file; labels and names take `n_annotation_bytes` of its `n_bytes`."""

    n_examples: int
    n_bytes: int
    n_annotation_bytes: int = 0


class FileWriter:
    """Writes a compressed file chunk by chunk, in constant memory: `add` chunks, then `finish`.

    The binary `file` is only appended to.
    """

    def __init__(self, file: BinaryIO, header: Header):
        self._file = file
        self._checksums: list[int] = []
        self.n_examples = self.n_bytes = self.n_annotation_bytes = 0
        data = header.to_bytes()
        self._seed = zlib.crc32(data[:-4])
        self._write(data)

    def add(self, payload: bytes, n_examples: int, labels: bytes = b"", names: bytes = b"") -> None:
        """Append a chunk, with packed labels and names if the header announces them."""
        annotations = b"".join(write_varint(len(part)) + part for part in (labels, names) if part)
        body = annotations + payload
        number = len(self._checksums)
        head = chunk_head(number, self.n_examples, n_examples, body, seed=self._seed)
        self._write(head + body)
        self._checksums.append(int.from_bytes(head[-4:], "little"))
        self.n_examples += n_examples
        self.n_annotation_bytes += len(annotations)

    def finish(self) -> Written:
        """Append the end record; return the totals."""
        self._write(end_bytes(self.n_examples, self._checksums, seed=self._seed))
        return Written(self.n_examples, self.n_bytes, self.n_annotation_bytes)

    def _write(self, data: bytes) -> None:
        self.n_bytes += len(data)
        while data:  # unbuffered files, such as pipes, may accept only part of the data
            n_written = self._file.write(data)
            data = b"" if n_written is None else data[n_written:]


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

    The bytes written depend neither on `n_workers` nor on how the examples are split into batches.

    Parameters
    ----------
    batches : examples z [b, *shape] of any floating-point type, on any device; or tuples
        (z, labels) or (z, labels, names). Labels are numbers [b, ...] of any type; names are a
        sequence of strings. Either may be None, but then in every batch. The batch size b may vary,
        and the memory of one batch may be reused for the next.
    out : path of the file, which is created or replaced only once all examples are written; or an
        open binary file.
    codec : a codec that is ready for coding, for instance a rate with coding tables.
    chunk_size : number of examples coded together, by default 4096, or fewer if they are large.
        Larger chunks make slightly smaller files; smaller chunks make random access faster.
    n_workers : processes that run the entropy coder; by default one per core.
    meta : additional header entries, of JSON types.
    timer : context manager that encloses all the codec's work; pass n_workers=1 with it.

    Raises CodingError if examples have the wrong shape or values that cannot be coded, such as NaN;
    ValueError for inconsistent labels or names; WorkerError if a worker process dies.
    """
    is_open = hasattr(out, "write")
    name = str(getattr(out, "name", "payload")) if is_open else os.fspath(out)
    # open the file before computing the first batch, which may be expensive
    with nullcontext(out) if is_open else replacing(out) as file:
        batches = map(_unpack, batches)
        first = next(batches, None)
        z, labels, names = first or (None, None, None)
        shape = codec.shape or np.shape(z)[1:]
        if chunk_size is None:
            chunk_size = max(1, min(CHUNK_SIZE, MAX_CHUNK_VALUES // max(1, math.prod(shape))))
        if not 1 <= chunk_size <= UINT32_MAX:
            raise ValueError(f"chunk_size is {chunk_size}, expected a positive integer")
        header = Header(
            codec.format_name,
            codec.fingerprint(),
            shape,
            dict(meta or {}),
            has_labels=labels is not None,
            has_names=names is not None,
        )
        writer = FileWriter(file, header)
        labels = deque() if header.has_labels else None
        names = deque() if header.has_names else None
        batches = itertools.chain([first] if first else [], batches)
        rows = _tensors(batches, shape, chunk_size, labels, names, codec.z_dtype)
        chunks = rebatch(rows, chunk_size)
        with closing(_encode_all(chunks, codec, name, n_workers, timer)) as payloads:
            for payload, n in payloads:
                writer.add(
                    payload,
                    n,
                    pack_labels(_take(labels, n)) if header.has_labels else b"",
                    pack_names(_take(names, n)) if header.has_names else b"",
                )
        return writer.finish()


def rebatch(batches: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Regroup batches [n, *shape] into chunks [size, *shape], on their device.

    The last chunk may be smaller. Chunks are copies, so the caller may reuse a batch's memory.
    """
    chunk: Tensor | None = None
    n = 0  # number of rows in `chunk`
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


def _encode_all(
    chunks: Iterable[Tensor],
    codec: Codec,
    name: str,
    n_workers: int | None,
    timer: AbstractContextManager,
) -> Iterator[tuple[bytes, int]]:
    """Yield the payload and number of examples of each chunk; workers code the symbols."""
    coder = codec.coder()

    def quantised() -> Iterator[tuple[int, Tensor | NDArray]]:
        start = 0
        for z in chunks:
            with _naming_examples(name, start, z), timer:
                symbols = z if coder is None else codec.quantise(z)
            yield start, symbols
            start += len(z)

    def encode(chunk: tuple[int, Tensor | NDArray]) -> tuple[bytes, int]:
        start, symbols = chunk
        with _naming_examples(name, start, symbols), timer:
            payload = codec.compress(symbols) if coder is None else coder.encode(symbols)
        return payload, len(symbols)

    return ordered_map(encode, quantised(), 1 if coder is None else n_workers)


@contextmanager
def _naming_examples(name: str, start: int, rows: Tensor | NDArray) -> Iterator[None]:
    """Name the file and the examples in a CodingError."""
    try:
        yield
    except CodingError as error:
        where = f"examples {start} to {start + len(rows) - 1}"
        # only for tensors: symbols are finite, and workers must not use torch
        if isinstance(rows, Tensor) and (invalid := ~rows.isfinite()).any():
            row, *place = invalid.nonzero()[0].tolist()
            value, column = float(rows[row, *place]), ", ".join(map(str, place))
            where += f", first {value} in column {column} of example {start + row}"
        raise CodingError(f"{name}: {where}: {error}") from error


def _unpack(batch: Batch) -> tuple[Rows, Any, Any]:
    """Split a batch into z, labels and names; those that are missing are None."""
    # data loaders return lists
    is_list = isinstance(batch, list) and len(batch) > 0 and isinstance(batch[0], Tensor)
    return (*batch, None, None)[:3] if isinstance(batch, tuple) or is_list else (batch, None, None)


def _tensors(
    batches: Iterable[tuple[Rows, Any, Any]],
    shape: tuple[int, ...],
    max_rows: int,
    labels: deque | None,
    names: deque | None,
    dtype: torch.dtype,
) -> Iterator[Tensor]:
    """Yield examples [n <= max_rows, *shape]; memory-mapped arrays are read piece by piece.

    The examples' labels and names are appended to the queues.
    """
    label_shape = None
    for z, y, strings in batches:
        z = z if isinstance(z, Tensor) else as_array(z, "examples")
        if z.shape[1:] != shape or "float" not in str(z.dtype):
            expected = "".join(f", {n}" for n in shape)
            raise CodingError(
                f"expected batches of floats [b{expected}], found {z.dtype} {[*z.shape]}"
            )
        if y is not None:
            y = np.array(as_array(y))  # a copy, because the next batch may reuse the memory
            label_shape = y.shape[1:] if label_shape is None else label_shape
            if y.shape[1:] != label_shape:
                raise ValueError(f"expected labels {[*label_shape]}, found {[*y.shape[1:]]}")
        y = [] if y is None else y
        strings = [] if strings is None else as_strings(strings)
        for values, queue, what in ((y, labels, "labels"), (strings, names, "names")):
            if len(values) != (0 if queue is None else len(z)):
                raise ValueError(
                    f"a batch of {len(z)} examples has {len(values)} {what}: either every "
                    "batch has one per example, or none has any"
                )
            if queue is not None:
                queue.extend(values)
        for start in range(0, len(z), max_rows):
            rows = z[start : start + max_rows]
            if isinstance(rows, Tensor):
                yield rows.detach().to(dtype)
            else:
                with np.errstate(over="ignore"):  # codecs reject infinite values
                    copied = np.array(rows, str(dtype).removeprefix("torch."))  # may be read-only
                yield torch.from_numpy(copied)


def _take(queue: deque, n: int) -> list:
    return [queue.popleft() for _ in range(n)]
