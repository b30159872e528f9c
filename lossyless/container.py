"""The file format of compressed data sets.

Little-endian layout; `crc(x, s)` is the CRC-32 of x that starts from s:

    header  magic 8s | version u8 | length u32 | JSON, utf-8 | crc(all before, 0) u32
    chunk   "CHNK" | number u32 | n_examples u32 | length u32 | crc(all before + payload, H) u32
            | payload
    ...     more chunks, without gaps
    index   "INDX" | n_chunks u32 | per chunk: offset u64, n_examples u32
            | crc(index up to here, H) u32 | offset of the index u64 | end magic 8s

H is the header's checksum, and the header holds an id drawn for each file, so that a chunk of
another file is detected even when both files come from the same model. Readers ignore keys of the
header that they do not know; whatever changes how older keys or chunks are read raises `VERSION`.

A file costs about 180 bytes and 32 bytes per chunk beyond its payloads.
"""

import bisect
import contextlib
import json
import os
import secrets
import struct
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

VERSION = 1
MAGIC = b"\x89LSLESS\n"  # not text: a transfer that changes line ends or the high bit breaks it
END_MAGIC = b"LSLESS\n\x89"
CHUNK_MARKER, INDEX_MARKER = b"CHNK", b"INDX"
UINT32_MAX = 2**32 - 1
SCAN_BLOCK = 1 << 20

_PREFIX = struct.Struct("<8sBI")
_CRC = struct.Struct("<I")
_CHUNK = struct.Struct("<4sIII")
_INDEX = struct.Struct("<4sI")
_INDEX_ENTRY = struct.Struct("<QI")
_FOOTER = struct.Struct("<IQ8s")
CHUNK_HEAD_SIZE = _CHUNK.size + _CRC.size


class ContainerError(ValueError):
    """A file of compressed examples is damaged, foreign, or of another model."""


@dataclass(frozen=True)
class Header:
    """What a file says about all of its examples.

    Attributes
    ----------
    fingerprint : str
        Hexadecimal fingerprint of the entropy model that wrote the payloads.
    codec : str
        Name of the codec of the payloads.
    shape : tuple of int
        Shape of one decoded example.
    dtype : str
        Type of the values of a decoded example.
    meta : dict
        Anything else that JSON can hold.
    id : str
        Drawn at random for each file; binds the chunks to it.
    """

    fingerprint: str
    codec: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    meta: dict[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=lambda: secrets.token_hex(8))

    def to_bytes(self) -> bytes:
        """Prefix, JSON and checksum. Raises ContainerError for a value that JSON cannot hold."""
        try:
            text = json.dumps(
                asdict(self), sort_keys=True, separators=(",", ":"), allow_nan=False
            ).encode()
        except (TypeError, ValueError) as error:
            raise ContainerError(f"the header does not fit into JSON: {error}") from error
        data = _PREFIX.pack(MAGIC, VERSION, len(text)) + text
        return data + _CRC.pack(zlib.crc32(data))

    @classmethod
    def from_json(cls, text: bytes) -> "Header":
        """Raises ValueError, KeyError or TypeError when `text` is not the JSON of a header."""
        values = json.loads(text)
        values["shape"] = tuple(values["shape"])
        return cls(**{key.name: values[key.name] for key in fields(cls)})


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
        self._seed = zlib.crc32(self._header_bytes[: -_CRC.size])
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
        head = _CHUNK.pack(CHUNK_MARKER, len(self._entries), n_examples, len(payload))
        crc = zlib.crc32(payload, zlib.crc32(head, self._seed))
        offset = self.n_bytes
        self._write(head, _CRC.pack(crc), payload)
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
        index = _INDEX.pack(INDEX_MARKER, len(self._entries))
        index += b"".join(_INDEX_ENTRY.pack(*entry) for entry in self._entries)
        return index + _FOOTER.pack(zlib.crc32(index, self._seed), self.n_bytes, END_MAGIC)

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


class Chunk(NamedTuple):
    """Where a chunk lies in its file."""

    number: int
    offset: int
    n_examples: int


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
        self.damaged: list[str] = []
        self._file = open(self.path, "rb", buffering=0)  # noqa: SIM115, see close
        try:
            self._size = os.fstat(self._file.fileno()).st_size
            self._read_header()
            self._check_fingerprint(fingerprint)
            self._chunks = self._recover_chunks() if recover else self._load_index()
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
        return self._read_chunk(self._chunks[i])

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

    def _error(self, reason: str, chunk: int | None = None) -> ContainerError:
        where = f"{self.path}: " if chunk is None else f"{self.path}: chunk {chunk}: "
        return ContainerError(where + reason)

    def _read_at(self, offset: int, n_bytes: int) -> bytes | None:
        """Bytes at an offset, or None, before anything is allocated, where the file has fewer."""
        if offset < 0 or offset + n_bytes > self._size:
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
        prefix = self._read_at(0, _PREFIX.size)
        if prefix is None or not prefix.startswith(MAGIC):
            raise self._error("not a file of compressed examples (its first bytes are others)")
        _, version, length = _PREFIX.unpack(prefix)
        if not 1 <= version <= VERSION:
            raise self._error(
                f"has version {version} of the format, this code reads 1 to {VERSION}: written by "
                "a newer release, or damaged"
            )
        rest = self._read_at(_PREFIX.size, length + _CRC.size)
        if rest is None:
            raise self._error("the header is damaged: it is longer than the file")
        text, (crc,) = rest[:length], _CRC.unpack(rest[length:])
        self._seed = zlib.crc32(prefix + text)
        if crc != self._seed:
            raise self._error("the header is damaged: its checksum does not match")
        try:
            self.header = Header.from_json(text)
        except (ValueError, KeyError, TypeError) as error:
            raise self._error(f"the header misses something: {error!r}") from error
        self._first_chunk = _PREFIX.size + length + _CRC.size

    def _check_fingerprint(self, fingerprint: str | None) -> None:
        if fingerprint not in (None, self.header.fingerprint):
            raise self._error(
                f"was written with the entropy model {self.header.fingerprint} "
                f"({self.header.codec}), but {fingerprint} was given to decode it"
            )

    def _load_index(self) -> list[Chunk]:
        try:
            return self._read_index()
        except ContainerError as error:
            raise ContainerError(
                f"{error}; open it with recover=True for the chunks that are intact"
            ) from error

    def _read_index(self) -> list[Chunk]:
        footer_offset = self._size - _FOOTER.size
        footer = self._read_at(footer_offset, _FOOTER.size)
        if footer_offset < self._first_chunk or footer is None or not footer.endswith(END_MAGIC):
            raise self._error("the file is cut or damaged at its end, where the index should be")
        crc, offset, _ = _FOOTER.unpack(footer)
        if not self._first_chunk <= offset <= footer_offset - _INDEX.size:
            raise self._error(f"the index is damaged: it cannot lie at byte {offset}")
        index = self._read_at(offset, footer_offset - offset)
        if index is None or zlib.crc32(index, self._seed) != crc:
            raise self._error("the index is damaged: its checksum does not match")
        marker, n_chunks = _INDEX.unpack_from(index)
        if marker != INDEX_MARKER or len(index) != _INDEX.size + n_chunks * _INDEX_ENTRY.size:
            raise self._error(f"the index is damaged: {n_chunks} chunks do not fit into it")
        entries = _INDEX_ENTRY.iter_unpack(index[_INDEX.size :])
        return [Chunk(number, *entry) for number, entry in enumerate(entries)]

    def _read_chunk(self, chunk: Chunk) -> bytes:
        """Payload of a chunk; checks that it is the chunk that was asked for."""
        head = self._read_at(chunk.offset, CHUNK_HEAD_SIZE)
        if head is None:
            raise self._error("lies beyond the end of the file", chunk.number)
        marker, number, n_examples, length = _CHUNK.unpack_from(head)
        if marker != CHUNK_MARKER or (number, n_examples) != (chunk.number, chunk.n_examples):
            raise self._error("its head is damaged, or it is another chunk", chunk.number)
        payload = self._read_at(chunk.offset + CHUNK_HEAD_SIZE, length)
        if payload is None:
            raise self._error("is damaged or cut: longer than the rest of the file", chunk.number)
        expected = zlib.crc32(payload, zlib.crc32(head[: _CHUNK.size], self._seed))
        if (expected,) != _CRC.unpack_from(head, _CHUNK.size):
            raise self._error(
                "its checksum does not match: damaged, or from another file", chunk.number
            )
        return payload

    def _recover_chunks(self) -> list[Chunk]:
        """All intact chunks, found by their markers, in the order of their numbers."""
        try:
            index = self._read_index()
        except ContainerError as error:
            self.damaged.append(str(error))
            index, end = None, self._size
        else:
            end = self._size - _FOOTER.size - _INDEX.size - len(index) * _INDEX_ENTRY.size
        found: dict[int, Chunk] = {}
        position = self._first_chunk
        while position < end:
            try:
                chunk, position = self._scan_chunk(position)
                found.setdefault(chunk.number, chunk)
            except ContainerError as error:
                start, position = position, self._find_marker(position + 1, end)
                is_index = self._read_at(start, len(INDEX_MARKER)) == INDEX_MARKER
                if position < end or not is_index:  # a damaged index is reported already
                    self.damaged.append(f"bytes {start} to {position}: {error}")
        self._report_missing(found, index)
        return [found[number] for number in sorted(found)]

    def _scan_chunk(self, position: int) -> tuple[Chunk, int]:
        """The chunk that starts at a byte, and the byte after it. Raises ContainerError if none."""
        head = self._read_at(position, CHUNK_HEAD_SIZE)
        if head is None or not head.startswith(CHUNK_MARKER):
            raise self._error("no chunk starts here")
        _, number, n_examples, _ = _CHUNK.unpack_from(head)
        chunk = Chunk(number, position, n_examples)
        return chunk, position + CHUNK_HEAD_SIZE + len(self._read_chunk(chunk))

    def _find_marker(self, position: int, end: int) -> int:
        """First byte in [position, end) from which a chunk may start, or `end`."""
        overlap = len(CHUNK_MARKER) - 1
        while position + overlap < end:
            block = self._read_at(position, min(SCAN_BLOCK, end - position)) or b""
            start = block.find(CHUNK_MARKER)
            if start >= 0:
                return position + start
            position += max(len(block), SCAN_BLOCK) - overlap
        return end

    def _report_missing(self, found: dict[int, Chunk], index: list[Chunk] | None) -> None:
        if index is None:
            numbers = [-1, *sorted(found)]
            for before, after in pairwise(numbers):
                if after - before > 1:
                    self.damaged.append(f"chunks {before + 1} to {after - 1} are lost")
            return
        for chunk in index:
            if chunk.number not in found:
                self.damaged.append(f"chunk {chunk.number} ({chunk.n_examples} examples) is lost")
            elif found[chunk.number].offset != chunk.offset:
                self.damaged.append(
                    f"chunk {chunk.number} lies at byte {found[chunk.number].offset}, the index "
                    f"says {chunk.offset}"
                )


def _sync_folder(folder: Path) -> None:
    """Makes a rename in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
