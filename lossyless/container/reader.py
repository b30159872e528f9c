"""Reading files of compressed examples."""

import bisect
import os
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

from lossyless.container.file import Chunk, ContainerFile
from lossyless.container.format import ContainerError
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
        the file. The reader then counts chunks and examples of intact chunks only, in their order.

    Attributes
    ----------
    header : Header
    chunk_sizes : list of int
        Number of examples of each chunk.
    chunk_numbers : list of int
        Number under which each chunk was written; 0, 1, ... unless chunks were lost.
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
        self.damaged: list[str] = []
        try:
            self._check_fingerprint(fingerprint)
            if recover:
                self._chunks, self.damaged = recover_chunks(self._file)
            else:
                self._chunks = self._load_index()
        except BaseException:
            self.close()
            raise
        self.chunk_sizes = [chunk.n_examples for chunk in self._chunks]
        self.chunk_numbers = [chunk.number for chunk in self._chunks]
        self._ends = list(accumulate(self.chunk_sizes))

    @property
    def n_chunks(self) -> int:
        return len(self._chunks)

    @property
    def n_examples(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read(self, i: int) -> bytes:
        """Payload of chunk i. Raises ContainerError if it is damaged."""
        if not 0 <= i < self.n_chunks:
            raise IndexError(f"{self.path}: chunk {i} of {self.n_chunks}")
        return self._file.read_chunk(self._chunks[i])

    def locate(self, example: int) -> tuple[int, int]:
        """Chunk that holds an example, and the example's place in it."""
        if not 0 <= example < self.n_examples:
            raise IndexError(f"{self.path}: example {example} of {self.n_examples}")
        i = bisect.bisect_right(self._ends, example)
        return i, example - self._ends[i] + self.chunk_sizes[i]

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

    def _load_index(self) -> list[Chunk]:
        try:
            return self._file.read_index()
        except ContainerError as error:
            raise ContainerError(
                f"{error}; open it with recover=True for the chunks that are intact"
            ) from error
