"""Writing files of compressed examples, atomically."""

import contextlib
import os
import secrets
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from lossyless.container.format import (
    CHUNK,
    CHUNK_MARKER,
    CRC,
    END_MAGIC,
    FOOTER,
    INDEX,
    INDEX_ENTRY,
    INDEX_MARKER,
    UINT32_MAX,
    ContainerError,
    Header,
)


class ContainerWriter:
    """Writes a file, one chunk at a time, in constant memory; use it in a `with` statement.

    The file has a temporary name in the folder of `path` until the `with` statement ends without an
    exception; otherwise it is removed, and whatever had the name `path` before is left untouched.

    Parameters
    ----------
    path : str or Path
        Final name of the file; an existing file is replaced. Its folder must exist.
    fingerprint, codec, shape, dtype, meta
        See `Header`.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        fingerprint: str,
        codec: str,
        shape: tuple[int, ...],
        dtype: str = "float32",
        meta: dict[str, Any] | None = None,
    ):
        self.path = Path(path)
        self.header = Header(fingerprint, codec, tuple(map(int, shape)), dtype, dict(meta or {}))
        self.n_bytes = 0
        self.n_examples = 0
        self._entries: list[tuple[int, int]] = []
        self._header_bytes = self.header.to_bytes()
        self._seed = zlib.crc32(self._header_bytes[: -CRC.size])
        suffix = f".{os.getpid()}-{secrets.token_hex(4)}.tmp"
        self._temporary = self.path.with_name(self.path.name + suffix)
        self._file: BinaryIO | None = None

    def __enter__(self) -> "ContainerWriter":
        self._file = open(self._temporary, "xb")
        self._write(self._header_bytes)
        return self

    def add(self, payload: bytes, n_examples: int) -> None:
        """Appends a chunk of at least one example.

        Raises OSError when it cannot be written; the file is then given up.
        """
        if not 1 <= n_examples <= UINT32_MAX:
            raise ContainerError(f"{self.path}: a chunk cannot hold {n_examples} examples")
        if len(payload) > UINT32_MAX:
            raise ContainerError(f"{self.path}: a chunk cannot hold {len(payload)} bytes")
        head = CHUNK.pack(CHUNK_MARKER, len(self._entries), n_examples, len(payload))
        crc = zlib.crc32(payload, zlib.crc32(head, self._seed))
        offset = self.n_bytes
        self._write(head, CRC.pack(crc), payload)
        self._entries.append((offset, n_examples))
        self.n_examples += n_examples

    def __exit__(self, error_type, error, traceback) -> None:
        if error_type is not None:
            self._discard()
            return
        self._write(self._index_bytes())
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._temporary, self.path)
        except BaseException:
            self._discard()
            raise
        self._file = None
        _sync_folder(self.path.parent)

    def _index_bytes(self) -> bytes:
        index = INDEX.pack(INDEX_MARKER, len(self._entries))
        index += b"".join(INDEX_ENTRY.pack(*entry) for entry in self._entries)
        return index + FOOTER.pack(zlib.crc32(index, self._seed), self.n_bytes, END_MAGIC)

    def _write(self, *parts: bytes) -> None:
        if self._file is None:
            raise ContainerError(f"{self.path}: not open for writing (anymore)")
        try:
            for part in parts:
                self._file.write(part)
                self.n_bytes += len(part)
        except BaseException:
            self._discard()
            raise

    def _discard(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            with contextlib.suppress(OSError):  # a full disk again: the first error is on its way
                file.close()
            self._temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Makes a rename in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
