"""Writing files of compressed examples, atomically."""

import contextlib
import os
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from lossyless.atomic import create_temporary, publish, sync_folder
from lossyless.container.format import (
    CRC,
    END_MAGIC,
    FOOTER,
    INDEX,
    INDEX_ENTRY,
    INDEX_MARKER,
    NO_LABELS,
    TOTAL,
    UINT32_MAX,
    ContainerError,
    Header,
    chunk_head,
)


class ContainerWriter:
    """Writes a file, one chunk at a time, in constant memory; use it in a `with` statement.

    The file has a temporary name in the folder of `path` until the `with` statement ends without an
    exception; otherwise it is removed, and whatever had the name `path` before is left untouched.
    A writer that is killed cannot remove its temporary file; the next writer of `path` does.

    Parameters
    ----------
    path : str or Path
        Final name of the file; an existing file is replaced. Its folder must exist.
    fingerprint, codec, shape, dtype, meta, sections
        See `Header`.

    Attributes
    ----------
    n_bytes, n_examples : int
        Written so far.
    labels_checksum : int
        Checksum of the labels that belong to the file, below 2^32, `format.NO_LABELS` or
        `format.UNKNOWN_LABELS`. It can be set until the `with` statement ends.
    temporary : Path
        Where the file is until it has its final name.
    """

    temporary: Path

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        fingerprint: str,
        codec: str,
        shape: tuple[int, ...],
        dtype: str = "float32",
        meta: dict[str, Any] | None = None,
        sections: dict[str, bytes] | None = None,
    ):
        self.path = Path(path)
        self.header = Header(
            fingerprint,
            codec,
            tuple(map(int, shape)),
            dtype,
            meta=dict(meta or {}),
            sections=dict(sections or {}),
        )
        self.n_bytes = 0
        self.n_examples = 0
        self.labels_checksum = NO_LABELS
        self._entries: list[tuple[int, int]] = []
        self._header_bytes = self.header.to_bytes()
        self._seed = zlib.crc32(self._header_bytes[: -CRC.size])
        self._file: BinaryIO | None = None
        self._is_finished = False

    def __enter__(self) -> "ContainerWriter":
        self.temporary, self._file = create_temporary(self.path)
        self._write(self._header_bytes)
        self._write(self._total_bytes())
        return self

    def add(self, payload: bytes, n_examples: int) -> None:
        """Appends a chunk of at least one example.

        Raises OSError when it cannot be written; the file is then given up.
        """
        if self._file is None or self._is_finished:
            raise ContainerError(f"{self.path}: not open for writing (anymore)")
        if not 1 <= n_examples <= UINT32_MAX:
            raise ContainerError(f"{self.path}: a chunk cannot hold {n_examples} examples")
        if len(payload) > UINT32_MAX:
            raise ContainerError(f"{self.path}: a chunk cannot hold {len(payload)} bytes")
        number, offset = len(self._entries), self.n_bytes
        head, crc = chunk_head(number, self.n_examples, n_examples, len(payload), seed=self._seed)
        self._write(head, CRC.pack(zlib.crc32(payload, crc)), payload)
        self._entries.append((offset, n_examples))
        self.n_examples += n_examples

    def finish(self) -> None:
        """Completes the file under its temporary name, where it can be read."""
        self._write(self._index_bytes())
        self._write_total()
        self._is_finished = True

    def abandon(self) -> None:
        """Gives the file up: the `with` statement then ends without one, and without an error."""
        self._discard()
        self._is_finished = True

    def __exit__(self, error_type, error, traceback) -> None:
        if error_type is not None:
            self._discard()
            return
        if not self._is_finished:
            self.finish()
        if self._file is None:
            return
        self._write_total()  # `labels_checksum` may be known only now
        with self._discarding():
            publish(self._file, self.temporary, self.path)
            self._file.close()
        self._file = None
        sync_folder(self.path.parent)

    def _write_total(self) -> None:
        with self._discarding():
            self._file.seek(len(self._header_bytes))
            self._file.write(self._total_bytes())
            self._file.flush()

    def _total_bytes(self) -> bytes:
        total = TOTAL.pack(self.n_examples, self.labels_checksum)
        return total + CRC.pack(zlib.crc32(total, self._seed))

    def _index_bytes(self) -> bytes:
        index = INDEX.pack(INDEX_MARKER, len(self._entries))
        index += b"".join(INDEX_ENTRY.pack(*entry) for entry in self._entries)
        return index + FOOTER.pack(zlib.crc32(index, self._seed), self.n_bytes, END_MAGIC)

    def _write(self, *parts: bytes) -> None:
        if self._file is None:
            raise ContainerError(f"{self.path}: not open for writing (anymore)")
        with self._discarding():
            for part in parts:
                self._file.write(part)
                self.n_bytes += len(part)

    @contextlib.contextmanager
    def _discarding(self):
        """Gives the file up when an exception passes."""
        try:
            yield
        except BaseException:
            self._discard()
            raise

    def _discard(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            with contextlib.suppress(OSError):  # a full disk again: the first error is on its way
                file.close()
            self.temporary.unlink(missing_ok=True)
