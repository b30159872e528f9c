"""Reading the parts of a file of compressed examples, each checked against its checksum."""

import os
import zlib
from pathlib import Path
from typing import NamedTuple

from lossyless.container.format import (
    CHUNK,
    CHUNK_HEAD_SIZE,
    CHUNK_MARKER,
    CRC,
    END_MAGIC,
    FOOTER,
    INDEX,
    INDEX_ENTRY,
    INDEX_MARKER,
    MAGIC,
    PREFIX,
    VERSION,
    ContainerError,
    Header,
)


class Chunk(NamedTuple):
    """Where a chunk lies in its file."""

    number: int
    offset: int
    n_examples: int


class ContainerFile:
    """An open file and what its layout says; all errors are `ContainerError` that name the file.

    Reads do not share a file position, so that forked processes may share an instance.

    Attributes
    ----------
    header : Header
    size : int
        Bytes of the file.
    first_chunk : int
        Byte after the header.
    """

    def __init__(self, path: Path):
        self.path = path
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115, see close
        try:
            self.size = os.fstat(self._file.fileno()).st_size
            self._read_header()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._file.close()

    def error(self, reason: str, chunk: int | None = None) -> ContainerError:
        """The error to raise, which says where."""
        where = f"{self.path}: " if chunk is None else f"{self.path}: chunk {chunk}: "
        return ContainerError(where + reason)

    def read_at(self, offset: int, n_bytes: int) -> bytes | None:
        """Bytes at an offset, or None, before anything is allocated, where the file has fewer."""
        if offset < 0 or offset + n_bytes > self.size:
            return None
        parts = []
        while n_bytes > 0:  # one call returns at most 2 GiB
            part = os.pread(self._file.fileno(), n_bytes, offset)
            if not part:
                return None  # cut by somebody else since it was opened
            parts.append(part)
            offset, n_bytes = offset + len(part), n_bytes - len(part)
        return b"".join(parts)

    def _read_header(self) -> None:
        prefix = self.read_at(0, PREFIX.size)
        if prefix is None or not prefix.startswith(MAGIC):
            raise self.error("not a file of compressed examples (its first bytes are others)")
        _, version, length = PREFIX.unpack(prefix)
        if not 1 <= version <= VERSION:
            raise self.error(
                f"has version {version} of the format, this code reads 1 to {VERSION}: written by "
                "a newer release, or damaged"
            )
        rest = self.read_at(PREFIX.size, length + CRC.size)
        if rest is None:
            raise self.error("the header is damaged: it is longer than the file")
        text, (crc,) = rest[:length], CRC.unpack(rest[length:])
        self._seed = zlib.crc32(prefix + text)
        if crc != self._seed:
            raise self.error("the header is damaged: its checksum does not match")
        try:
            self.header = Header.from_json(text)
        except (ValueError, KeyError, TypeError) as error:
            raise self.error(f"the header misses something: {error!r}") from error
        self.first_chunk = PREFIX.size + length + CRC.size

    def read_index(self) -> list[Chunk]:
        """All chunks, as the index at the end of the file lists them."""
        footer_offset = self.size - FOOTER.size
        footer = self.read_at(footer_offset, FOOTER.size)
        if footer_offset < self.first_chunk or footer is None or not footer.endswith(END_MAGIC):
            raise self.error("the file is cut or damaged at its end, where the index should be")
        crc, offset, _ = FOOTER.unpack(footer)
        if not self.first_chunk <= offset <= footer_offset - INDEX.size:
            raise self.error(f"the index is damaged: it cannot lie at byte {offset}")
        index = self.read_at(offset, footer_offset - offset)
        if index is None or zlib.crc32(index, self._seed) != crc:
            raise self.error("the index is damaged: its checksum does not match")
        marker, n_chunks = INDEX.unpack_from(index)
        if marker != INDEX_MARKER or len(index) != INDEX.size + n_chunks * INDEX_ENTRY.size:
            raise self.error(f"the index is damaged: {n_chunks} chunks do not fit into it")
        entries = INDEX_ENTRY.iter_unpack(index[INDEX.size :])
        return [Chunk(number, *entry) for number, entry in enumerate(entries)]

    def read_chunk(self, chunk: Chunk) -> bytes:
        """Payload of a chunk; checks that it is the chunk that was asked for."""
        head = self.read_at(chunk.offset, CHUNK_HEAD_SIZE)
        if head is None:
            raise self.error("lies beyond the end of the file", chunk.number)
        marker, number, n_examples, length = CHUNK.unpack_from(head)
        if marker != CHUNK_MARKER or (number, n_examples) != (chunk.number, chunk.n_examples):
            raise self.error("its head is damaged, or it is another chunk", chunk.number)
        payload = self.read_at(chunk.offset + CHUNK_HEAD_SIZE, length)
        if payload is None:
            raise self.error("is damaged or cut: longer than the rest of the file", chunk.number)
        expected = zlib.crc32(payload, zlib.crc32(head[: CHUNK.size], self._seed))
        if (expected,) != CRC.unpack_from(head, CHUNK.size):
            raise self.error(
                "its checksum does not match: damaged, or from another file", chunk.number
            )
        return payload
