"""Opening compressed files: their header and chunks, each checked against its checksum."""

import os
import zlib
from typing import Any

from lossyless.files.format import (
    CHUNK_HEAD,
    CHUNK_MARKER,
    CRC,
    END,
    END_MARKER,
    INDEX_MARKER,
    MAGIC,
    MAX_HEADER,
    PREFIX,
    TOTAL,
    VERSION,
    Chunk,
    ContainerError,
    Header,
    end_bytes,
)

READ_BLOCK = 1 << 20
MARKERS = (CHUNK_MARKER, END_MARKER, INDEX_MARKER)


class Layout:
    """An open compressed file: its header and its chunks; all errors name the file.

    Reads do not share a file position: forked processes may share an instance.

    Parameters
    ----------
    source : path, or the bytes of a file.
    is_recovering : whether to skip damage and find the intact chunks, in one pass over the file.

    Attributes
    ----------
    name : str
        The path, or "payload".
    n_bytes : int
    header : Header
    chunks : list of Chunk
    n_examples : int
        Examples that were written, lost ones included. If the end is lost, those up to the last
        intact chunk.
    damaged : list of str
        Descriptions of all damage; empty unless `is_recovering`.

    Raises
    ------
    ContainerError
        The file is foreign, of a newer version, or damaged; when recovering, only if its header is.
    """

    def __init__(self, source: str | os.PathLike | bytes, *, is_recovering: bool = False):
        self._data = bytes(source) if isinstance(source, (bytes, bytearray, memoryview)) else None
        self.name = "payload" if self._data is not None else os.fspath(source)
        self._file = None if self._data is not None else open(source, "rb", buffering=0)  # noqa: SIM115
        self.damaged: list[str] = []
        try:
            self.n_bytes = os.fstat(self._file.fileno()).st_size if self._file else len(self._data)
            position = self._read_header()
            self.chunks, self.n_examples = [], 0
            self._total = self._read_total(position) if self.header.version == 1 else None
            position += TOTAL.size if self.header.version == 1 else 0
            self._recover(position) if is_recovering else self._walk(position)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def error(self, reason: str, chunk: Chunk | None = None) -> ContainerError:
        where = f"{self.name}: " if chunk is None else f"{self.name}: chunk {chunk.number}: "
        return ContainerError(where + reason)

    def check_fingerprint(self, fingerprint: str) -> None:
        """Raises ContainerError if another codec wrote the file."""
        if fingerprint != self.header.fingerprint:
            raise self.error(
                f"was written with the entropy model {self.header.fingerprint} "
                f"({self.header.codec}), but {fingerprint} was given to decode it"
            )

    def read_body(self, chunk: Chunk) -> bytes:
        """The body of a chunk. Raises ContainerError if it is damaged."""
        body = self._read(chunk.start, chunk.length)
        if zlib.crc32(body, chunk.seed) != chunk.checksum:
            raise self.error("its checksum does not match: damaged, or from another file", chunk)
        return body

    def _read(self, offset: int, n_bytes: int) -> bytes:
        """Bytes from an offset, fewer where the file ends."""
        if self._file is None:
            return self._data[offset : offset + n_bytes]
        parts = []
        while n_bytes > 0 and (part := os.pread(self._file.fileno(), n_bytes, offset)):
            parts.append(part)  # one call returns at most 2 GiB
            offset, n_bytes = offset + len(part), n_bytes - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_header(self) -> int:
        """Read the header; returns the byte after it."""
        prefix = self._read(0, PREFIX.size)
        if not prefix:
            raise self.error("is empty")
        if len(prefix) < PREFIX.size or not prefix.startswith(MAGIC):
            raise self.error("is not a compressed file (its first bytes differ)")
        _, version, length, n_sections = PREFIX.unpack(prefix)
        if not 1 <= version <= VERSION:
            raise self.error(
                f"has version {version} of the format, this code reads 1 to {VERSION}: written by "
                "a newer release, or damaged"
            )
        length += n_sections
        content = self._read(PREFIX.size, length + CRC.size) if length <= MAX_HEADER else b""
        text, checksum = content[:length], content[length:]
        self._seed = zlib.crc32(prefix + text)
        if checksum != CRC.pack(self._seed):
            raise self.error("the header is damaged or cut off: its checksum does not match")
        try:
            self.header = Header.from_json(text[: length - n_sections], version)
        except (ValueError, KeyError, TypeError) as error:
            raise self.error(f"invalid header: {error!r}") from error
        return PREFIX.size + length + CRC.size

    def _read_total(self, position: int) -> int | None:
        """Examples that version 1 states behind the header, or None if damaged."""
        total = self._read(position, TOTAL.size)
        is_intact = len(total) == TOTAL.size and total[-4:] == CRC.pack(
            zlib.crc32(total[:-4], self._seed)
        )
        return TOTAL.unpack(total)[0] if is_intact else None

    def _read_head(self, offset: int) -> Chunk | None:
        """The chunk at a byte, or None unless its head is intact and the file holds all of it."""
        head = self._read(offset, CHUNK_HEAD.size)
        if len(head) < CHUNK_HEAD.size or not head.startswith(CHUNK_MARKER):
            return None
        _, number, first, n_examples, length, crc, checksum = CHUNK_HEAD.unpack(head)
        chunk = Chunk(number, first, n_examples, length, crc, checksum, offset + CHUNK_HEAD.size)
        is_intact = zlib.crc32(head[:-8], self._seed) == crc and chunk.end <= self.n_bytes
        return chunk if is_intact else None

    def _is_end(self, offset: int) -> bool:
        """Whether an intact end, which states the total, is at a byte."""
        if self.header.version == 1:
            return self._read(offset, len(INDEX_MARKER)) == INDEX_MARKER
        end = self._read(offset, END.size)
        is_end = end.startswith(END_MARKER) and offset + END.size == self.n_bytes
        if is_end and end[-4:] == CRC.pack(zlib.crc32(end[:-4], self._seed)):
            self._total = END.unpack(end)[1]
            return True
        return False

    def _walk(self, position: int) -> None:
        """List all chunks of an intact file."""
        while chunk := self._read_head(position):
            if (chunk.number, chunk.first) != (len(self.chunks), self.n_examples):
                raise self.error("lies behind another one: damaged or forged", chunk)
            self._append(chunk)
            position = chunk.end
        if not self._has_valid_end(position):
            raise self.error(
                f"is cut or damaged at byte {position}, behind {len(self.chunks)} chunks. Intact "
                "chunks can still be read: on_damage='skip' (--on-damage skip)"
            )

    def _has_valid_end(self, position: int) -> bool:
        """Whether the file ends at a byte, with exactly these chunks."""
        if not self._is_end(position) or self._total != self.n_examples:
            return False
        checksums = [chunk.checksum for chunk in self.chunks]
        expected = end_bytes(self.n_examples, checksums, seed=self._seed)
        return self.header.version == 1 or self._read(position, END.size) == expected

    def _append(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)
        self.n_examples = chunk.stop

    def _recover(self, position: int) -> None:
        """List the intact chunks; behind damage, go on at the next intact head."""
        while position < self.n_bytes and not self._is_end(position):
            chunk = self._read_head(position)
            if chunk and chunk.first >= self.n_examples and self._is_intact(chunk):
                if chunk.first > self.n_examples:
                    self._note_lost(chunk.first)
                self._append(chunk)
                position = chunk.end
            else:
                start, position = position, self._find_marker(position + 1)
                what = (
                    "no chunk" if chunk is None else f"chunk {chunk.number}, damaged or displaced,"
                )
                self._note(f"{what} at byte {start}; skipped to {position}")
        if self._total is None:
            self._note("the end is lost: examples behind the last intact chunk are unknown")
        elif self._total > self.n_examples:
            self._note_lost(self._total)
        elif not self.damaged and not self._has_valid_end(position):
            self._note("the end does not fit: it is damaged, or a chunk is from another file")
        self.n_examples = max(self.n_examples, self._total or 0)

    def _note(self, damage: str) -> None:
        self.damaged.append(f"{self.name}: {damage}")

    def _note_lost(self, stop: int) -> None:
        self._note(f"examples {self.n_examples} to {stop - 1} are lost")

    def _is_intact(self, chunk: Chunk) -> bool:
        crc = chunk.seed
        for start in range(chunk.start, chunk.end, READ_BLOCK):
            crc = zlib.crc32(self._read(start, min(READ_BLOCK, chunk.end - start)), crc)
        return crc == chunk.checksum

    def _find_marker(self, position: int) -> int:
        """First byte from `position` where a chunk or the end may start, or the file's size."""
        while position < self.n_bytes:
            block = self._read(position, READ_BLOCK)
            found = [place for marker in MARKERS if (place := block.find(marker)) >= 0]
            if found:
                return position + min(found)
            position += max(1, len(block) - len(CHUNK_MARKER) + 1)
        return self.n_bytes


def describe(path: str | os.PathLike) -> dict[str, Any]:
    """Facts of a file's header and chunks, of types that JSON holds; no model is needed.

    Raises ContainerError if the file is foreign or damaged.
    """
    layout = Layout(path)
    layout.close()
    header, n_examples = layout.header, layout.n_examples
    return {
        "path": layout.name,
        "codec": header.codec,
        "fingerprint": header.fingerprint,
        "shape": list(header.shape),
        "has_labels": header.has_labels,
        "has_names": header.has_names,
        "n_examples": n_examples,
        "n_chunks": len(layout.chunks),
        "n_bytes": layout.n_bytes,
        "bits_per_example": 8 * layout.n_bytes / n_examples if n_examples else None,
        "meta": header.meta,
    }
