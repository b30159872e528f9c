"""Reads examples from compressed files."""

import operator
import os
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lossyless.base import Codec
from lossyless.coding.payloads import CodingError
from lossyless.files.format import Chunk, Header
from lossyless.files.labels import labels_of, names_of, split_body
from lossyless.files.scan import Layout
from lossyless.parallel import ordered_map

CACHE_BYTES = 1 << 26

Source = str | os.PathLike | bytes


class FeatureFile:
    """Random access to the examples of a file; use it in a `with` statement.

    `file[i]` is example i as it was written, float32 [*shape] on the CPU; `file[10:20:2]`,
    `file[[3, -1]]` and `file[mask]` are [n, *shape]. Only the chunks that are needed are read, and
    the last ones are cached, `CACHE_BYTES` of them. Data-loading processes may share an instance.

    Parameters
    ----------
    source : path of a file of `write_features`, or its bytes.
    codec : the codec that wrote it.
    on_damage : "raise"; or "skip": find the intact chunks, in one pass over the file. `chunks`,
        `read`, `labels` and `names` then give only those, and `file[i]` raises an error for lost
        examples.

    Attributes
    ----------
    name : path of the file, or "payload".
    header : see `Header`.
    damaged : descriptions of all damage; empty unless `on_damage` is "skip".

    Raises
    ------
    ContainerError
        The file is damaged, is not a lossyless file, or was written by another model or a newer
        version.
    CodingError
        A chunk is intact, but this codec cannot have written it.
    """

    def __init__(
        self, source: Source, codec: Codec, *, on_damage: Literal["raise", "skip"] = "raise"
    ):
        if on_damage not in ("raise", "skip"):
            raise ValueError(f"on_damage: expected 'raise' or 'skip', found {on_damage!r}")
        self.codec = codec
        self._source, self._on_damage = source, on_damage
        self._cache: OrderedDict[int, NDArray | Tensor] = OrderedDict()
        self._running: weakref.WeakSet[Iterator] = weakref.WeakSet()
        self._layout = Layout(source, is_recovering=on_damage == "skip")
        try:
            self._check_codec()
            self._coder = codec.coder()
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        return self._layout.name

    @property
    def header(self) -> Header:
        return self._layout.header

    @property
    def damaged(self) -> list[str]:
        return self._layout.damaged

    def __len__(self) -> int:
        """Number of examples that were written, lost ones included."""
        return self._layout.n_examples

    @cached_property
    def indices(self) -> NDArray[np.int64]:
        """Indices of the examples that `read` gives, [n]."""
        return _join([range(chunk.first, chunk.stop) for chunk in self._layout.chunks])

    @cached_property
    def missing(self) -> NDArray[np.int64]:
        """Indices of lost examples; empty unless `on_damage` is "skip"."""
        chunks = self._layout.chunks
        ends = [0, *(chunk.stop for chunk in chunks)]
        starts = [*(chunk.first for chunk in chunks), len(self)]
        return _join([range(end, start) for end, start in zip(ends, starts, strict=True)])

    def __getitem__(self, selection: int | slice | ArrayLike) -> Tensor:
        if isinstance(selection, slice):
            return self._gather(_join([range(len(self))[selection]]))
        if np.ndim(selection) == 0:
            return self._gather(self._from_end(np.array([operator.index(selection)])))[0]
        return self._gather(self._to_indices(selection))

    def chunks(
        self,
        n_workers: int | None = None,
        *,
        timer: AbstractContextManager = nullcontext(),  # noqa: B008, it has no state
    ) -> Iterator[tuple[int, Tensor]]:
        """Chunk by chunk, in constant memory: index of the first example, and examples [n, *shape].

        n_workers : processes that decode; by default one per core. They end with the iteration, or
            when the file is closed.
        timer : context manager around all work of the codec, with n_workers=1.
        """
        chunks = self._iterate(1 if self._coder is None else n_workers, timer)
        self._running.add(chunks)
        return chunks

    def _iterate(
        self, n_workers: int | None, timer: AbstractContextManager
    ) -> Iterator[tuple[int, Tensor]]:
        def decode(chunk: Chunk) -> NDArray | Tensor:
            return self._decode(chunk, timer)

        chunks = self._layout.chunks
        with closing(ordered_map(decode, chunks, n_workers)) as decoded:
            for chunk, rows in zip(chunks, decoded, strict=True):
                with timer:
                    z_hat = self._to_features(rows)
                yield chunk.first, z_hat

    def read(self, n_workers: int | None = None) -> Tensor:
        """All examples [N, *shape], or those of the intact chunks; in the order of `indices`."""
        n_examples = sum(chunk.n_examples for chunk in self._layout.chunks)
        z_hat = torch.empty(n_examples, *self.header.shape)
        start = 0
        with closing(self.chunks(n_workers)) as chunks:
            for _, rows in chunks:
                z_hat[start : start + len(rows)] = rows
                start += len(rows)
        return z_hat

    def labels(self) -> NDArray | None:
        """Labels [N, ...] of what `read` gives, or None if the file has none."""
        return labels_of(self._layout)

    @cached_property
    def names(self) -> list[str] | None:
        """Names of what `read` gives, or None if the file has none."""
        return names_of(self._layout)

    def close(self) -> None:
        for chunks in list(self._running):
            chunks.close()
        self._layout.close()

    def __enter__(self) -> "FeatureFile":
        return self

    def __exit__(self, error_type, error, traceback) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"source": self._source, "codec": self.codec, "on_damage": self._on_damage}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    def _check_codec(self) -> None:
        self._layout.check_fingerprint(self.codec.fingerprint())
        shape, expected = self.header.shape, self.codec.shape
        if expected is not None and shape != tuple(expected):
            raise self._layout.error(f"holds examples {list(shape)}, not {list(expected)}")

    def _decode(
        self,
        chunk: Chunk,
        timer: AbstractContextManager = nullcontext(),  # noqa: B008
    ) -> NDArray | Tensor:
        """Symbols of a chunk, or examples if the codec has no symbols; also in workers."""
        payload = split_body(self._layout.read_body(chunk), self.header).payload
        decode = self.codec.decompress if self._coder is None else self._coder.decode
        try:
            with timer:
                return decode(payload, chunk.n_examples)
        except CodingError as error:
            raise CodingError(f"{self.name}: chunk {chunk.number}: {error}") from error

    def _to_features(self, rows: NDArray | Tensor) -> Tensor:
        return rows if self._coder is None else self.codec.dequantise(rows)

    def _cached(self, position: int) -> NDArray | Tensor:
        if position in self._cache:
            self._cache.move_to_end(position)
            return self._cache[position]
        rows = self._decode(self._layout.chunks[position])
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
            raise IndexError(f"{self.name}: index {indices[outside][0]} of {len(self)} examples")
        # only after the check: a large uint64 would wrap to a negative index
        indices = indices.astype(np.int64)
        return np.where(indices < 0, indices + len(self), indices)

    def _gather(self, indices: NDArray[np.int64]) -> Tensor:
        """Examples [n, *shape] in any order; each chunk is decoded once."""
        firsts = np.array([chunk.first for chunk in self._layout.chunks], np.int64)
        stops = np.array([chunk.stop for chunk in self._layout.chunks], np.int64)
        positions = np.searchsorted(firsts, indices, side="right") - 1
        lost = (positions < 0) | (indices >= stops[positions]) if len(stops) else indices >= 0
        if lost.any():
            raise self._layout.error(f"example {indices[lost][0]} is lost: its chunk is damaged")
        z_hat = torch.empty(len(indices), *self.header.shape)
        for position in np.unique(positions).tolist():
            where = np.flatnonzero(positions == position)
            rows = self._cached(position)[indices[where] - firsts[position]]
            z_hat[torch.from_numpy(where)] = self._to_features(rows)
        return z_hat


def _join(ranges: list[range]) -> NDArray[np.int64]:
    """The integers of all ranges, one range after the other."""
    parts = [np.arange(part.start, part.stop, part.step) for part in ranges]
    return np.concatenate([np.empty(0, np.int64), *parts])
