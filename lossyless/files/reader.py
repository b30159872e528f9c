"""Reads examples from compressed files."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import Dataset

from lossyless.base import Codec
from lossyless.coding.payloads import CodingError
from lossyless.files.format import Chunk
from lossyless.files.labels import as_array
from lossyless.files.scan import CompressedFile
from lossyless.parallel import Portable, ordered_map

CACHE_BYTES = 1 << 26

Source = str | os.PathLike | bytes


class FeatureFile(Portable, CompressedFile):
    """Random access to the examples of a file; use it in a `with` statement.

    `file[i]` is the decoded example i: `codec.z_dtype` [*shape], on the CPU; `file[10:20:2]`,
    `file[[3, -1]]` and `file[mask]` are [n, *shape]. Only the required chunks are read, and up to
    `CACHE_BYTES` of the most recent ones are cached. Threads and data-loading processes can share
    an instance.

    Parameters
    ----------
    source : path of a file written by `write_features`, or its bytes.
    codec : the codec that wrote it.
    on_damage : "raise" an error if the file is damaged; or "skip" damage: find the intact chunks in
        one pass over the file. `chunks`, `read`, `labels` and `names` then return only the examples
        of these chunks, and `file[i]` raises an error for lost examples. If part of another file
        from the same codec was copied over this one, that may go unnoticed.

    Attributes
    ----------
    name : path of the file, or "payload".
    header : see `Header`.
    damaged : descriptions of all damage; empty unless `on_damage` is "skip".

    Raises ContainerError if the file is damaged, is not a compressed file, or was written by
    another model or a newer version; CodingError if a chunk is intact, but this codec cannot have
    written it.
    """

    def __init__(
        self, source: Source, codec: Codec, *, on_damage: Literal["raise", "skip"] = "raise"
    ):
        self.codec = codec
        self._source, self._on_damage = source, on_damage
        self._cache: dict[int, NDArray | Tensor] = {}
        super().__init__(source, on_damage=on_damage)
        try:
            self._check_codec()
            self._coder = codec.coder()
        except BaseException:
            self.close()
            raise

    @cached_property
    def indices(self) -> NDArray[np.int64]:
        """Indices of the examples that `read` returns, [n]."""
        return np.flatnonzero(self._chunk_of >= 0)

    @cached_property
    def missing(self) -> NDArray[np.int64]:
        """Indices of lost examples; empty unless `on_damage` is "skip"."""
        return np.flatnonzero(self._chunk_of < 0)

    @cached_property
    def _chunk_of(self) -> NDArray[np.int64]:
        """Position of the chunk that holds each example, or -1 if the example is lost, [N]."""
        chunk_of = np.full(len(self), -1)
        for position, chunk in enumerate(self.heads):
            chunk_of[chunk.first : chunk.stop] = position
        return chunk_of

    def __getitem__(self, selection: int | slice | ArrayLike) -> Tensor:
        if isinstance(selection, Tensor):
            selection = selection.cpu().numpy()  # numpy treats a tensor [1] as an integer
        indices = self._all[selection]
        if indices.ndim > 1:
            raise TypeError(
                f"expected an index, a slice, indices [n] or a mask [{len(self)}], found "
                f"{np.asarray(selection).dtype} {[*np.shape(selection)]}"
            )
        z_hat = self._gather(indices.reshape(-1))
        return z_hat if indices.ndim else z_hat[0]

    @cached_property
    def _all(self) -> NDArray[np.int64]:
        return np.arange(len(self))

    def chunks(
        self,
        n_workers: int | None = None,
        *,
        timer: AbstractContextManager = nullcontext(),  # noqa: B008, it has no state
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield chunks, in constant memory: index of the first example, and examples [n, *shape].

        n_workers : processes that decode, by default one per core; they end with the iterator.
        timer : context manager that encloses all the codec's work; pass n_workers=1 with it.
        """
        n_workers = 1 if self._coder is None else n_workers
        decoded = ordered_map(lambda chunk: self._decode(chunk, timer), self.heads, n_workers)
        with closing(decoded):
            for chunk, rows in zip(self.heads, decoded, strict=True):
                with timer:
                    z_hat = self._to_features(rows)
                yield chunk.first, z_hat

    def read(self, n_workers: int | None = None) -> Tensor:
        """Read all examples [N, *shape], or those of intact chunks, in the order of `indices`."""
        z_hat = self._empty(len(self.indices))
        start = 0
        with closing(self.chunks(n_workers)) as chunks:
            for _, rows in chunks:
                z_hat[start : start + len(rows)] = rows
                start += len(rows)
        return z_hat

    def __getstate__(self) -> dict[str, Any]:
        return {"source": self._source, "codec": self.codec, "on_damage": self._on_damage}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    def _check_codec(self) -> None:
        expected, found = self.header.fingerprint, self.codec.fingerprint()
        if found != expected:
            raise self.error(
                f"was written with the entropy model {expected} ({self.header.codec}), but {found} "
                "was given to decode it"
            )
        shape, expected = self.header.shape, self.codec.shape
        if expected is not None and shape != tuple(expected):
            raise self.error(f"holds examples {list(shape)}, not {list(expected)}")

    def _empty(self, n: int) -> Tensor:
        return torch.empty(n, *self.header.shape, dtype=self.codec.z_dtype, device="cpu")

    def _decode(
        self,
        chunk: Chunk,
        timer: AbstractContextManager = nullcontext(),  # noqa: B008
    ) -> NDArray | Tensor:
        """Decode a chunk to symbols, or to examples if there is no coder. Also runs in workers."""
        payload = self.read_body(chunk).payload
        decode = self.codec.decompress if self._coder is None else self._coder.decode
        try:
            with timer:
                return decode(payload, chunk.n_examples)
        except CodingError as error:
            raise CodingError(f"{self.name}: chunk {chunk.number}: {error}") from error

    def _to_features(self, rows: NDArray | Tensor) -> Tensor:
        return rows if self._coder is None else self.codec.dequantise(rows)

    def _cached(self, position: int) -> NDArray | Tensor:
        # threads may share the cache: each operation on it is atomic
        rows = self._cache.pop(position, None)
        if rows is None:
            rows = self._decode(self.heads[position])
        self._cache[position] = rows  # the last one is the most recent
        recent = self._cache.copy()
        while len(recent) > 1 and sum(r.nbytes for r in recent.values()) > CACHE_BYTES:
            oldest = next(iter(recent))
            del recent[oldest]
            self._cache.pop(oldest, None)
        return rows

    def _gather(self, indices: NDArray[np.int64]) -> Tensor:
        """Gather examples [n, *shape] in any order, decoding each chunk at most once."""
        positions = self._chunk_of[indices]
        if (positions < 0).any():
            lost = indices[positions < 0][0]
            raise self.error(f"example {lost} is lost: its chunk is damaged")
        z_hat = self._empty(len(indices))
        for position in np.unique(positions).tolist():
            where = np.flatnonzero(positions == position)
            rows = indices[where] - self.heads[position].first
            z_hat[torch.from_numpy(where)] = self._to_features(self._cached(position)[rows])
        return z_hat


class FeatureDataset(Portable, Dataset, AbstractContextManager):
    """The examples of a file for a `DataLoader`: z [*shape], or (z, label).

    Chunks are decoded on demand, and the most recent ones are cached. If the chunks do not all fit
    in the cache, random access decodes a chunk for nearly every example: read the whole file
    instead, or write it with smaller chunks.

    Parameters
    ----------
    source, codec : see `FeatureFile`.
    labels : one per example; or True, to use the labels stored in the file.
    """

    def __init__(self, source: Source, codec: Codec, labels: ArrayLike | bool | None = None):
        self.file = FeatureFile(source, codec)
        if labels is True:
            labels = self.file.labels()
            if labels is None:
                raise ValueError(f"{self.file.name}: holds no labels")
        self.labels = None if labels is None or labels is False else as_array(labels)
        if self.labels is not None and len(self.labels) != len(self.file):
            raise ValueError(
                f"{self.file.name}: has {len(self.file)} examples, but {len(self.labels)} labels "
                "were given"
            )

    def close(self) -> None:
        self.file.close()

    def __exit__(self, *exception) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.file)

    def __getitem__(self, i: int) -> Tensor | tuple[Tensor, np.generic]:
        return self.file[i] if self.labels is None else (self.file[i], self.labels[i])

    def __getitems__(self, indices: list[int]) -> list:
        """Return a batch, as `DataLoader` requests it, decoding each chunk at most once."""
        z = self.file[indices]
        return list(z) if self.labels is None else list(zip(z, self.labels[indices], strict=True))
