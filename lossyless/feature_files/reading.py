"""Files to features."""

import operator
import os
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lossyless.coding.payloads import CodingError
from lossyless.container import ContainerError, ContainerReader, Header
from lossyless.feature_files.codecs import MAX_CHUNK_VALUES, Codec, chunk_codec
from lossyless.parallel import ordered_map

CACHE_BYTES = 1 << 26
# What a file can ask to be allocated at once: half of the memory, or MAX_EXPANSION times its own
# bytes. Forged files claim what they like, and features have 16 to 40 times their bytes; equal
# ones, more than any bound.
MAX_EXPANSION = 1024
MAX_LISTED = 1 << 27  # examples that `missing` lists


class FeatureFile:
    """Random access to the features of a file; use it in a `with` statement.

    `file[i]` is example i as it was written, float32 [D] on the CPU; `file[10:20:2]`,
    `file[[3, -1]]` and `file[mask]` are [n, D]. Only the chunks that are needed are read, and the
    last ones are kept, `CACHE_BYTES` of them. Data-loading processes may share an instance.

    Parameters
    ----------
    path : a file of `write_features`.
    codec : the rate that wrote it, with its coding tables.
    on_damage : "raise", or "skip": find the chunks that are intact, in one pass over the file.
        `chunks` and `read` then give those only, and lost examples are an error for `file[i]`.

    Attributes
    ----------
    damaged : in words, what is damaged; empty unless `on_damage` is "skip".
    labels_checksum : of the labels that were written with it; see `ContainerWriter`.

    Raises
    ------
    ContainerError
        The file is damaged, foreign, of another model or of a newer version; or claims far more
        examples than its bytes can hold.
    CodingError
        A chunk is intact, but this codec cannot have written it.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        codec: Codec,
        *,
        on_damage: Literal["raise", "skip"] = "raise",
    ):
        if on_damage not in ("raise", "skip"):
            raise ValueError(f"on_damage: expected 'raise' or 'skip', found {on_damage!r}")
        self.path = Path(path)
        self.codec = codec
        self._on_damage = on_damage
        self._cache: OrderedDict[int, NDArray | Tensor] = OrderedDict()
        self._running: weakref.WeakSet[Iterator] = weakref.WeakSet()
        self._reader = ContainerReader(
            path, fingerprint=codec.fingerprint(), recover=on_damage == "skip"
        )
        try:
            self._check_shapes()
            self._chunks = chunk_codec(codec)
        except BaseException:
            self.close()
            raise
        self.damaged = self._reader.damaged
        self.labels_checksum = self._reader.labels_checksum

    @property
    def header(self) -> Header:
        """What the container says of all examples."""
        return self._reader.header

    @cached_property
    def indices(self) -> NDArray[np.int64]:
        """Examples that `read` gives, [n]."""
        self._check_size(self._reader.n_examples)
        return _join(self._intact_ranges())

    @cached_property
    def missing(self) -> NDArray[np.int64]:
        """Examples that are lost; empty unless `on_damage` is "skip"."""
        n_missing = len(self) - self._reader.n_examples
        if n_missing > MAX_LISTED:
            raise ContainerError(
                f"{self.path}: {n_missing} examples are missing, which are too many to list; "
                "`damaged` says which chunks"
            )
        ends = [0, *(part.stop for part in self._intact_ranges())]
        starts = [*(part.start for part in self._intact_ranges()), len(self)]
        return _join(map(range, ends, starts))

    def _intact_ranges(self) -> list[range]:
        sizes = zip(self._reader.first_examples, self._reader.chunk_sizes, strict=True)
        return [range(first, first + n) for first, n in sizes]

    def __len__(self) -> int:
        """Number of examples that were written, lost ones included."""
        return self._reader.n_written

    def __getitem__(self, selection: int | slice | ArrayLike) -> Tensor:
        if isinstance(selection, slice):
            selected = range(len(self))[selection]
            self._check_size(len(selected))
            return self._gather(_join([selected]))
        if np.ndim(selection) == 0:
            return self._gather(self._from_end(np.array([operator.index(selection)])))[0]
        return self._gather(self._to_indices(selection))

    def chunks(self, n_workers: int | None = None) -> Iterator[tuple[int, Tensor]]:
        """Chunk by chunk, in constant memory: the first example and features [n, D].

        n_workers : processes that decode; by default one per core. They end with the iteration, or
            when the file is closed.
        """
        chunks = self._iterate(n_workers if self._chunks.is_parallel else 1)
        self._running.add(chunks)
        return chunks

    def _iterate(self, n_workers: int | None) -> Iterator[tuple[int, Tensor]]:
        chunks = range(self._reader.n_chunks)
        with closing(ordered_map(self._decode, chunks, n_workers)) as decoded:
            for first, rows in zip(self._reader.first_examples, decoded, strict=True):
                yield first, self._chunks.to_features(rows)

    def read(self, n_workers: int | None = None) -> Tensor:
        """All features [N, D], or those of the intact chunks; in the order of `indices`."""
        self._check_size(self._reader.n_examples)
        z_hat = torch.empty(self._reader.n_examples, *self.header.shape)
        start = 0
        with closing(self.chunks(n_workers)) as chunks:
            for _, rows in chunks:
                z_hat[start : start + len(rows)] = rows
                start += len(rows)
        return z_hat

    def close(self) -> None:
        for chunks in list(self._running):
            chunks.close()
        self._reader.close()

    def __enter__(self) -> "FeatureFile":
        return self

    def __exit__(self, error_type, error, traceback) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "codec": self.codec, "on_damage": self._on_damage}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    def _check_shapes(self) -> None:
        header, z_dim = self.header, self.codec.z_dim
        if (header.shape, header.dtype) != ((z_dim,), "float32"):
            raise ContainerError(
                f"{self.path}: holds examples {header.dtype} {list(header.shape)}, not features "
                f"float32 [{z_dim}]"
            )
        if self.header.sections:
            raise ContainerError(
                f"{self.path}: has coding tables of its own (adapt=True), which are not read "
                "any more: decompress it with the version that wrote it"
            )
        largest = max(self._reader.chunk_sizes, default=0)
        if largest * z_dim > MAX_CHUNK_VALUES:
            raise ContainerError(
                f"{self.path}: has a chunk of {largest} examples, more than "
                f"{MAX_CHUNK_VALUES // z_dim}"
            )

    def _check_size(self, n_examples: int) -> None:
        """Refuses examples that cannot be what the bytes of the file hold, before they are made."""
        n_bytes = 4 * self.codec.z_dim * n_examples
        if n_bytes > max(physical_memory() // 2, MAX_EXPANSION * self._reader.n_bytes):
            raise ContainerError(
                f"{self.path}: claims {n_examples} examples, {n_bytes} bytes of features, in "
                f"{self._reader.n_bytes} bytes: it is forged, or the features hardly differ. Read "
                "it in constant memory: chunk by chunk with `FeatureFile.chunks`, or into a .npy "
                "file with `decompress_to_npy` (python -m lossyless.hub decompress)."
            )

    def _decode(self, position: int) -> NDArray | Tensor:
        """Rows of a chunk; also in workers."""
        payload = self._reader.read(position)
        try:
            return self._chunks.decode(payload, self._reader.chunk_sizes[position])
        except CodingError as error:
            number = self._reader.chunk_numbers[position]
            raise CodingError(f"{self.path}: chunk {number}: {error}") from error

    def _cached(self, position: int) -> NDArray | Tensor:
        if position in self._cache:
            self._cache.move_to_end(position)
            return self._cache[position]
        rows = self._decode(position)
        self._cache[position] = rows
        while len(self._cache) > 1 and sum(r.nbytes for r in self._cache.values()) > CACHE_BYTES:
            self._cache.popitem(last=False)
        return rows

    def _to_indices(self, selection: ArrayLike) -> NDArray[np.int64]:
        indices = np.asarray(selection)
        if indices.size == 0:
            indices = indices.astype(np.int64)  # an empty list has no type of its own
        if indices.dtype == bool and indices.shape == (len(self),):
            return np.flatnonzero(indices)
        if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
            raise TypeError(
                f"expected an index, a slice, indices [n] or a mask [{len(self)}], found "
                f"{indices.dtype} {list(indices.shape)}"
            )
        return self._from_end(indices)

    def _from_end(self, indices: NDArray[np.integer]) -> NDArray[np.int64]:
        """The indices with negative ones counted from the end."""
        outside = (indices < -len(self)) | (indices >= len(self))
        if outside.any():
            raise IndexError(f"{self.path}: index {indices[outside][0]} of {len(self)} examples")
        indices = indices.astype(np.int64)  # after the check: uint64 beyond it becomes negative
        return np.where(indices < 0, indices + len(self), indices)

    def _gather(self, indices: NDArray[np.int64]) -> Tensor:
        """Features [n, D] of examples in any order; each chunk is decoded once."""
        positions, places = self._reader.locate(indices)
        z_hat = torch.empty(len(indices), *self.header.shape)
        order = np.argsort(positions, kind="stable")
        ends = np.flatnonzero(np.diff(positions[order], append=-1)) + 1
        start = 0
        for end in ends.tolist():
            where = order[start:end]
            rows = self._cached(int(positions[where[0]]))[places[where]]
            z_hat[torch.from_numpy(where)] = self._chunks.to_features(rows)
            start = end
        return z_hat


def physical_memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _join(ranges: Iterable[range]) -> NDArray[np.int64]:
    """The integers of all ranges, one range after the other."""
    parts = [np.arange(part.start, part.stop, part.step) for part in ranges]
    return np.concatenate([np.empty(0, np.int64), *parts])
