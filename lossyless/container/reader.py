"""Reading files of compressed examples."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lossyless.container.file import Chunk, ContainerFile
from lossyless.container.format import UNKNOWN_LABELS, ContainerError
from lossyless.container.recovery import recover_chunks


class ContainerReader:
    """Reads the chunks of a file in any order, in constant memory; use it in a `with` statement.

    Reads do not share a file position, so that forked data-loading processes may share a reader.

    Parameters
    ----------
    path : str or Path
    fingerprint : str, optional
        Fingerprint of the entropy model that will decode; any other model's file is refused.
    recover : bool
        Look for chunks that are intact instead of trusting the index, which takes one pass over
        the file. The reader then has the intact chunks only, in their order.

    Attributes
    ----------
    header : Header
    chunk_sizes : list of int
        Number of examples of each chunk.
    chunk_numbers : list of int
        Number under which each chunk was written; 0, 1, ... unless chunks were lost.
    first_examples : list of int
        First example of each chunk, counted as they were written.
    n_examples : int
        Examples of all chunks.
    n_written : int
        Examples that were written: more than `n_examples` if chunks were lost. If `recover` found
        nothing intact that tells it, those up to the end of the last intact chunk.
    labels_checksum : int
        As in `ContainerWriter`: `format.UNKNOWN_LABELS` too if what tells it is damaged.
    damaged : list of str
        With `recover`, what is damaged or lost; empty for an intact file.

    Raises
    ------
    ContainerError
        The file is foreign, of a newer version, of another model, or damaged. With `recover`, only
        a damaged header makes a file unreadable.
    """

    def __init__(
        self, path: str | os.PathLike, *, fingerprint: str | None = None, recover: bool = False
    ):
        self.path = Path(path)
        self._file = ContainerFile(self.path)
        self.header = self._file.header
        self.n_bytes = self._file.size
        self.labels_checksum = UNKNOWN_LABELS
        self.damaged: list[str] = []
        try:
            self._check_fingerprint(fingerprint)
            if recover:
                self._chunks, n_written, self.damaged = recover_chunks(self._file)
            else:
                self._chunks, n_written = self._load_index()
            with contextlib.suppress(ContainerError):  # damaged, which was said above
                _, self.labels_checksum = self._file.read_total()
        except BaseException:
            self.close()
            raise
        self.chunk_sizes = [chunk.n_examples for chunk in self._chunks]
        self.chunk_numbers = [chunk.number for chunk in self._chunks]
        self.first_examples = [chunk.first for chunk in self._chunks]
        self.n_examples = sum(self.chunk_sizes)
        if n_written is None:
            n_written = self.first_examples[-1] + self.chunk_sizes[-1] if self._chunks else 0
            self.damaged.append("how many examples followed the last intact chunk is unknown")
        self.n_written = n_written

    @property
    def n_chunks(self) -> int:
        return len(self._chunks)

    def read(self, i: int) -> bytes:
        """Payload of chunk i. Raises ContainerError if it is damaged."""
        if not 0 <= i < self.n_chunks:
            raise IndexError(f"{self.path}: chunk {i} of {self.n_chunks}")
        return self._file.read_chunk(self._chunks[i])

    def locate(self, examples: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Chunk that holds each example, counted as they were written, and its place there.

        Raises
        ------
        IndexError
            There is no such example.
        ContainerError
            The chunk of an example is lost.
        """
        examples = np.asarray(examples, np.int64)
        firsts = np.array(self.first_examples, np.int64)
        ends = firsts + np.array(self.chunk_sizes, np.int64)
        outside = (examples < 0) | (examples >= self.n_written)
        if outside.any():
            raise IndexError(f"{self.path}: example {examples[outside][0]} of {self.n_written}")
        chunks = np.searchsorted(firsts, examples, side="right") - 1
        lost = (chunks < 0) | (examples >= ends[chunks]) if len(ends) else examples >= 0
        if lost.any():
            raise self._file.error(f"example {examples[lost][0]} is lost: its chunk is damaged")
        return chunks, examples - firsts[chunks]

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        for i, n_examples in enumerate(self.chunk_sizes):
            yield self.read(i), n_examples

    def __enter__(self) -> "ContainerReader":
        return self

    def __exit__(self, error_type, error, traceback) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def _check_fingerprint(self, fingerprint: str | None) -> None:
        if fingerprint not in (None, self.header.fingerprint):
            raise self._file.error(
                f"was written with the entropy model {self.header.fingerprint} "
                f"({self.header.codec}), but {fingerprint} was given to decode it"
            )

    def _load_index(self) -> tuple[list[Chunk], int]:
        try:
            chunks, (n_written, _) = self._file.read_index(), self._file.read_total()
        except ContainerError as error:
            raise ContainerError(
                f"{error}. What is intact can be read all the same: on_damage='skip' "
                "(--on-damage skip, or recover=True of ContainerReader)"
            ) from error
        n_listed = sum(chunk.n_examples for chunk in chunks)
        if n_listed != n_written:
            raise self._file.error(f"lists {n_listed} examples, but {n_written} were written")
        return chunks, n_written
