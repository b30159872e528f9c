"""Reading the parts of a file of compressed examples, each checked against its checksum."""

import os
import zlib
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from lossyless.container.format import (
    CHUNK,
    CHUNK_HEAD_SIZE,
    CRC,
    END_MAGIC,
    FOOTER,
    INDEX,
    INDEX_ENTRY,
    INDEX_MARKER,
    MAGIC,
    MAX_EXAMPLES,
    MAX_HEADER,
    PREFIX,
    TOTAL,
    VERSION,
    ContainerError,
    Header,
    chunk_head,
)

READ_BLOCK = 1 << 20


class Chunk(NamedTuple):
    """Where a chunk lies in its file, and which examples it holds."""

    number: int
    offset: int
    first: int
    n_examples: int
    length: int

    @property
    def end(self) -> int:
        """Byte after the payload."""
        return self.offset + CHUNK_HEAD_SIZE + self.length


class ContainerFile:
    """An open file and what its layout says; all errors are `ContainerError` that name the file.

    Reads do not share a file position, so that forked processes may share an instance.

    Attributes
    ----------
    header : Header
    size : int
        Bytes of the file.
    first_chunk : int
        Byte where the first chunk starts.
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
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_header(self) -> None:
        if self.size == 0:
            raise self.error("is empty")
        prefix = self.read_at(0, PREFIX.size)
        if prefix is None or not prefix.startswith(MAGIC):
            raise self.error("not a file of compressed examples (its first bytes are others)")
        _, version, n_text, n_sections = PREFIX.unpack(prefix)
        if not 1 <= version <= VERSION:
            raise self.error(
                f"has version {version} of the format, this code reads 1 to {VERSION}: written by "
                "a newer release, or damaged"
            )
        length = n_text + n_sections
        if length > MAX_HEADER:
            raise self.error(f"the header is damaged: it is longer than {MAX_HEADER} bytes")
        rest = self.read_at(PREFIX.size, length + CRC.size)
        if rest is None:
            raise self.error("the header is damaged: it is longer than the file")
        content, (crc,) = rest[:length], CRC.unpack(rest[length:])
        self._seed = zlib.crc32(prefix + content)
        if crc != self._seed:
            raise self.error("the header is damaged: its checksum does not match")
        try:
            self.header = Header.from_bytes(content[:n_text], content[n_text:])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self.error(f"the header misses something: {error!r}") from error
        self._total_offset = PREFIX.size + length + CRC.size
        self.first_chunk = self._total_offset + TOTAL.size + CRC.size

    def read_total(self) -> tuple[int, int]:
        """Number of examples that were written, and `ContainerWriter.labels_checksum`."""
        data = self.read_at(self._total_offset, TOTAL.size + CRC.size)
        if data is None or (zlib.crc32(data[: TOTAL.size], self._seed),) != CRC.unpack_from(
            data, TOTAL.size
        ):
            raise self.error("the number of examples is damaged or cut off")
        n_examples, labels_checksum = TOTAL.unpack_from(data)
        if n_examples > MAX_EXAMPLES:
            raise self.error(f"claims {n_examples} examples, more than any file can hold")
        return n_examples, labels_checksum

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
        return self._list_chunks([*INDEX_ENTRY.iter_unpack(index[INDEX.size :])], offset)

    def _list_chunks(self, entries: list[tuple[int, int]], end: int) -> list[Chunk]:
        """The chunks of index entries (offset, n_examples); they fill the file up to byte `end`."""
        if not entries:
            return []
        starts, sizes = zip(*entries, strict=True)
        firsts = accumulate(sizes, initial=0)
        lengths = [
            stop - start - CHUNK_HEAD_SIZE
            for start, stop in zip(starts, [*starts[1:], end], strict=True)
        ]
        if starts[0] != self.first_chunk or min(lengths) < 0:
            raise self.error("the index is damaged: its chunks overlap or leave a gap")
        parts = zip(starts, firsts, sizes, lengths, strict=False)
        return [Chunk(number, *part) for number, part in enumerate(parts)]

    def _head_of(self, chunk: Chunk) -> tuple[bytes, int]:
        number, _, *counts = chunk
        return chunk_head(number, *counts, seed=self._seed)

    def read_head(self, offset: int) -> Chunk | None:
        """The chunk at a byte, or None unless its head is intact and the file has all of it."""
        head = self.read_at(offset, CHUNK_HEAD_SIZE)
        if head is None:
            return None
        _, number, *counts = CHUNK.unpack_from(head)
        chunk = Chunk(number, offset, *counts)
        is_there = head.startswith(self._head_of(chunk)[0]) and chunk.end <= self.size
        return chunk if is_there and chunk.first + chunk.n_examples <= MAX_EXAMPLES else None

    def is_intact(self, chunk: Chunk) -> bool:
        """Whether the payload of a chunk of `read_head` is intact; in constant memory."""
        payload = chunk.end - chunk.length
        expected = self.read_at(payload - CRC.size, CRC.size)
        _, crc = self._head_of(chunk)
        for start in range(payload, chunk.end, READ_BLOCK):
            block = self.read_at(start, min(READ_BLOCK, chunk.end - start))
            if block is None:
                return False
            crc = zlib.crc32(block, crc)
        return CRC.pack(crc) == expected

    def read_chunk(self, chunk: Chunk) -> bytes:
        """Payload of a chunk; checks that it is the chunk that was asked for."""
        data = self.read_at(chunk.offset, CHUNK_HEAD_SIZE + chunk.length)
        if data is None:
            raise self.error("was cut off since the file was opened", chunk.number)
        head, crc = self._head_of(chunk)
        if not data.startswith(head):
            raise self.error(
                "its head is damaged, or it is another chunk, or from another file", chunk.number
            )
        payload = data[CHUNK_HEAD_SIZE:]
        if (zlib.crc32(payload, crc),) != CRC.unpack_from(data, len(head)):
            raise self.error(
                "its checksum does not match: damaged, or from another file", chunk.number
            )
        return payload
