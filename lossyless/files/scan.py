"""Opens compressed files: locates their chunks, and verifies the checksums of what it reads."""

import os
import re
import zlib
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lossyless.coding.payloads import MAX_VARINT_BYTES, read_varint
from lossyless.files.format import (
    CHUNK_HEAD,
    CHUNK_MARKER,
    CRC,
    END,
    END_MARKER,
    INDEX_MARKER,
    MAGIC,
    PREFIX,
    TOTAL,
    VERSION,
    Body,
    Chunk,
    ContainerError,
    Header,
    end_bytes,
)
from lossyless.files.labels import unpack_labels, unpack_names

READ_BLOCK = 1 << 20
MARKER = re.compile(b"|".join((CHUNK_MARKER, END_MARKER, INDEX_MARKER)))


class CompressedFile(AbstractContextManager):
    """An open compressed file: header, chunks, labels and damage. All errors name the file.

    No codec is needed. Reads do not move the file position, so forked processes can share an
    instance.

    Parameters
    ----------
    source : path, or the bytes of a file.
    on_damage : "raise" an error, or "skip" damage: find the intact chunks in one pass over the
        file. Only damage to the header is then an error.

    Attributes
    ----------
    name : the path, or "payload".
    n_bytes, header
    heads : the (intact) chunks.
    n_examples : number of written examples, including lost ones; if the end of the file is lost,
        counted up to the last intact chunk.
    damaged : descriptions of all damage; empty unless `on_damage` is "skip".

    Raises ContainerError if the file is not a compressed file, has a newer version, or is damaged.
    """

    def __init__(
        self, source: str | os.PathLike | bytes, *, on_damage: Literal["raise", "skip"] = "raise"
    ):
        if on_damage not in ("raise", "skip"):
            raise ValueError(f"on_damage: expected 'raise' or 'skip', found {on_damage!r}")
        self._data = bytes(source) if isinstance(source, (bytes, bytearray, memoryview)) else None
        self.name = "payload" if self._data is not None else os.fspath(source)
        self._file = None if self._data is not None else open(source, "rb", buffering=0)  # noqa: SIM115
        self.damaged: list[str] = []
        try:
            if self._file is not None and not self._file.seekable():
                raise self.error("is a pipe: save it to a file first")
            self.n_bytes = os.fstat(self._file.fileno()).st_size if self._file else len(self._data)
            self.heads: list[Chunk] = []
            self.n_examples, self._total = 0, None
            position = self._read_header()
            if self.header.version == 1:
                self._total = self._read_total(position)
                position += TOTAL.size
            self._recover(position) if on_damage == "skip" else self._walk(position)
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        """Number of examples that were written, including lost ones."""
        return self.n_examples

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def error(self, reason: str, chunk: Chunk | None = None) -> ContainerError:
        where = f"{self.name}: " if chunk is None else f"{self.name}: chunk {chunk.number}: "
        return ContainerError(where + reason)

    def labels(self, max_chunks: int | None = None) -> NDArray | None:
        """Read the labels [n, ...] of the first `max_chunks` (intact) chunks, by default of all.

        Returns None if the file has no labels.
        """
        if not self.header.has_labels:
            return None
        parts = [unpack_labels(self.read_body(chunk).labels) for chunk in self.heads[:max_chunks]]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    @cached_property
    def names(self) -> list[str] | None:
        """Names of the examples in the (intact) chunks; None if the file has none."""
        if not self.header.has_names:
            return None
        parts = [unpack_names(self.read_body(chunk).names) for chunk in self.heads]
        return [name for names in parts for name in names]

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes, in label order; None if the file has none."""
        return self.header.meta.get("classes")

    def describe(self) -> dict[str, Any]:
        """Return properties from the header and the chunk heads, as JSON types.

        `bits_per_example` excludes labels and names, which take `n_annotation_bytes`.
        """
        n_annotation_bytes = sum(self._n_annotation_bytes(chunk) for chunk in self.heads)
        n_bits = 8 * (self.n_bytes - n_annotation_bytes)
        names = ("codec", "fingerprint", "shape", "has_labels", "has_names")
        return {
            "path": self.name,
            **{name: getattr(self.header, name) for name in names},
            "shape": list(self.header.shape),
            "n_examples": self.n_examples,
            "n_chunks": len(self.heads),
            "n_bytes": self.n_bytes,
            "n_annotation_bytes": n_annotation_bytes,
            "bits_per_example": n_bits / self.n_examples if self.n_examples else None,
            "meta": self.header.meta,
        }

    def read_body(self, chunk: Chunk) -> Body:
        """Read the body of a chunk. Raises ContainerError if it is damaged."""
        body = self._read(chunk.start, chunk.length)
        if zlib.crc32(body, chunk.seed) != chunk.checksum:
            raise self.error("checksum mismatch: it is damaged, or from another file", chunk)
        parts = []
        for is_present in (self.header.has_labels, self.header.has_names):
            length, start = read_varint(body, 0) if is_present else (0, 0)
            parts.append(body[start : start + length])
            body = body[start + length :]
        return Body(*parts, body)

    def _read(self, offset: int, n_bytes: int) -> bytes:
        """Read `n_bytes` from an offset, or fewer at the end of the file."""
        if self._file is None:
            return self._data[offset : offset + n_bytes]
        parts = []
        while n_bytes > 0 and (part := self._read_some(offset, n_bytes)):
            parts.append(part)  # one call returns at most 2 GiB
            offset, n_bytes = offset + len(part), n_bytes - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_some(self, offset: int, n_bytes: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), n_bytes, offset)
        self._file.seek(offset)  # Windows, which does not fork
        return self._file.read(n_bytes)

    def _read_header(self) -> int:
        """Read the header; return the offset of the first byte after it."""
        prefix = self._read(0, PREFIX.size)
        if not prefix:
            raise self.error("is empty")
        if len(prefix) < PREFIX.size or not prefix.startswith(MAGIC):
            raise self.error("is not a compressed file (its first bytes differ)")
        _, version, length, n_sections = PREFIX.unpack(prefix)
        if not 1 <= version <= VERSION:
            raise self.error(
                f"has format version {version}, but this release reads versions 1 to {VERSION}: "
                "update lossyless, unless the file is damaged"
            )
        length += n_sections
        content = self._read(PREFIX.size, length + CRC.size)
        text, checksum = content[:length], content[length:]
        self._seed = zlib.crc32(prefix + text)
        if checksum != CRC.pack(self._seed):
            raise self.error("the header is damaged or truncated: checksum mismatch")
        try:
            self.header = Header.from_json(text[: length - n_sections], version)
        except (ValueError, KeyError, TypeError) as error:
            raise self.error(f"invalid header: {error!r}") from error
        return PREFIX.size + length + CRC.size

    def _read_total(self, position: int) -> int | None:
        """Read the total that version 1 stores after the header; return None if it is damaged."""
        total = self._read(position, TOTAL.size)
        is_intact = total[-4:] == CRC.pack(zlib.crc32(total[:-4], self._seed))
        return TOTAL.unpack(total)[0] if is_intact else None

    def _read_head(self, offset: int) -> Chunk | None:
        """Return the chunk at an offset; None if its head is damaged or its body is cut off."""
        head = self._read(offset, CHUNK_HEAD.size)
        if len(head) < CHUNK_HEAD.size or not head.startswith(CHUNK_MARKER):
            return None
        _, number, first, n_examples, length, crc, checksum = CHUNK_HEAD.unpack(head)
        chunk = Chunk(number, first, n_examples, length, crc, checksum, offset + CHUNK_HEAD.size)
        is_intact = zlib.crc32(head[:-8], self._seed) == crc and chunk.end <= self.n_bytes
        return chunk if is_intact else None

    def _is_end(self, offset: int) -> bool:
        """Whether there is an intact end record at an offset; if so, store its total."""
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
            if (chunk.number, chunk.first) != (len(self.heads), self.n_examples):
                break
            self._append(chunk)
            position = chunk.end
        if not self._has_valid_end(position):
            raise self.error(
                f"is truncated or damaged at byte {position}, after {len(self.heads)} chunks; "
                "on_damage='skip' (--on-damage skip) reads only the chunks that are intact"
            )

    def _has_valid_end(self, position: int) -> bool:
        """Whether the file ends at `position`, after exactly the chunks in `heads`."""
        if self.header.version == 1:
            return self._is_end(position) and self._total == self.n_examples
        checksums = [chunk.checksum for chunk in self.heads]
        expected = end_bytes(self.n_examples, checksums, seed=self._seed)
        return self._read(position, END.size + 1) == expected

    def _n_annotation_bytes(self, chunk: Chunk) -> int:
        """Number of bytes that the labels and names of a chunk take."""
        position = chunk.start
        for _ in range(self.header.has_labels + self.header.has_names):
            length, n_read = read_varint(self._read(position, MAX_VARINT_BYTES), 0)
            position += n_read + length
        return position - chunk.start

    def _append(self, chunk: Chunk) -> None:
        self.heads.append(chunk)
        self.n_examples = chunk.stop

    def _recover(self, position: int) -> None:
        """List the intact chunks; after damage, continue at the next intact head."""
        while position < self.n_bytes and not self._is_end(position):
            chunk = self._read_head(position)
            if chunk and chunk.first >= self.n_examples and self._is_intact(chunk):
                self._note_lost(chunk.first)
                self._append(chunk)
                position = chunk.end
            else:
                start, position = position, self._find_marker(position + 1)
                found = f"damaged or displaced chunk {chunk.number}" if chunk else "no chunk"
                self._note(f"{found} at byte {start}; skipped to {position}")
        if self._total is None:
            self._note("the end is lost: examples after the last intact chunk are unknown")
        else:
            self._note_lost(self._total)
        if not self.damaged and not self._has_valid_end(position):
            self._note("the end is damaged, or a chunk is from another file")
        self.n_examples = max(self.n_examples, self._total or 0)

    def _note(self, damage: str) -> None:
        self.damaged.append(f"{self.name}: {damage}")

    def _note_lost(self, stop: int) -> None:
        if stop > self.n_examples:
            self._note(f"examples {self.n_examples} to {stop - 1} are lost")

    def _is_intact(self, chunk: Chunk) -> bool:
        return zlib.crc32(self._read(chunk.start, chunk.length), chunk.seed) == chunk.checksum

    def _find_marker(self, position: int) -> int:
        """First offset >= `position` where a chunk or the end may start, or the file's size."""
        while block := self._read(position, READ_BLOCK):
            if found := MARKER.search(block):
                return position + found.start()
            position += max(1, len(block) - len(CHUNK_MARKER) + 1)
        return self.n_bytes
