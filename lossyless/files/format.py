"""Byte layout of compressed files.

Little-endian; crc(x, s) is the CRC-32 of x with the initial value s:

    header  magic 8s | version u8 | length of the JSON u32 | 0 u32 | JSON, utf-8
            | H = crc(all before, 0) u32
    chunk   "CHNK" | number u32 | first example u64 | n_examples u32 | length of the body u32
            | C = crc(all before, H) u32 | crc(body, C) u32 | body
            body: [varint length | labels: zlib of np.save, [n_examples, ...]]
                  [varint length | names: zlib of a JSON list of n_examples strings] payload
    ...     more chunks, without gaps
    end     "DONE" | n_examples u64 | crc(checksums of all bodies in order, H) u32
            | crc(all before, H) u32; nothing follows

Bodies have labels if the JSON contains `"has_labels": true`, and names if it contains
`"has_names": true`. Chunk heads have their own checksums, so the lengths in them can be trusted
before the bodies are read: opening a file reads only the heads. Readers ignore unknown JSON keys,
and reject files in which an unknown `has_...` flag is true. Any other change with
which older readers would misread files needs a new `VERSION`. Files contain no dates or random
numbers: the same examples produce the same bytes.

Version 1 files can still be read. They have neither labels nor names; a total follows the header,
and they end with an index ("INDX"), which readers ignore:

    total   n_examples u64 | checksum of the labels u64 | crc(both, H) u32
"""

import json
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any, NamedTuple

VERSION = 2
MAGIC = b"\x89LSLESS\n"  # reveals transfers that change line endings or the high bit
CHUNK_MARKER, END_MARKER, INDEX_MARKER = b"CHNK", b"DONE", b"INDX"
UINT32_MAX = 2**32 - 1

PREFIX = struct.Struct("<8sBII")
CRC = struct.Struct("<I")
CHUNK_HEAD = struct.Struct("<4sIQIIII")
END = struct.Struct("<4sQII")
TOTAL = struct.Struct("<QQI")
FLAGS = ("has_labels", "has_names")


class ContainerError(ValueError):
    """A file is damaged, not a compressed file, or from another model or a newer version."""


@dataclass(frozen=True)
class Header:
    """Properties that all examples in a file share."""

    codec: str  # format name of the payloads
    fingerprint: str  # hexadecimal, of the codec that wrote the payloads
    shape: tuple[int, ...]  # of one decoded example
    meta: dict[str, Any] = field(default_factory=dict)  # additional entries, of JSON types
    has_labels: bool = False  # whether chunks hold the examples' labels
    has_names: bool = False
    version: int = VERSION  # of the layout

    def to_bytes(self) -> bytes:
        left_out = {"version"} if self.has_names else {"version", "has_names"}
        values = {name: value for name, value in vars(self).items() if name not in left_out}
        text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
        data = PREFIX.pack(MAGIC, VERSION, len(text), 0) + text.encode()
        return data + CRC.pack(zlib.crc32(data))

    @classmethod
    def from_json(cls, text: bytes, version: int) -> "Header":
        """Parse a header. Raises ValueError, KeyError or TypeError if `text` is invalid."""
        values = json.loads(text)
        unknown = [k for k, v in values.items() if k.startswith("has_") and v and k not in FLAGS]
        if unknown or values.get("sections"):
            raise ValueError(f"written by another release: it has {unknown or 'adapted tables'}")
        flags = {flag: bool(values.get(flag)) for flag in FLAGS}
        shape = tuple(map(int, values["shape"]))
        codec, fingerprint, meta = values["codec"], values["fingerprint"], values["meta"]
        return cls(codec, fingerprint, shape, meta, **flags, version=version)


class Chunk(NamedTuple):
    """Position of a chunk in its file, and its range of examples."""

    number: int
    first: int
    n_examples: int
    length: int
    seed: int
    checksum: int
    start: int

    @property
    def stop(self) -> int:
        """Index of the first example after the chunk."""
        return self.first + self.n_examples

    @property
    def end(self) -> int:
        """Offset of the first byte after the body."""
        return self.start + self.length


class Body(NamedTuple):
    """Parts of a chunk's body; `labels` and `names` are empty if the file has none."""

    labels: bytes
    names: bytes
    payload: bytes


def chunk_head(number: int, first: int, n_examples: int, body: bytes, *, seed: int) -> bytes:
    """Return the bytes before a chunk's body; `seed` is the checksum of the header."""
    head = CHUNK_HEAD.pack(CHUNK_MARKER, number, first, n_examples, len(body), 0, 0)[:-8]
    crc = zlib.crc32(head, seed)
    return head + CRC.pack(crc) + CRC.pack(zlib.crc32(body, crc))


def end_bytes(n_examples: int, checksums: list[int], *, seed: int) -> bytes:
    """Return the bytes that end a file; `checksums` are those of all chunk bodies, in order."""
    bodies = zlib.crc32(b"".join(map(CRC.pack, checksums)), seed)
    end = END.pack(END_MARKER, n_examples, bodies, 0)[:-4]
    return end + CRC.pack(zlib.crc32(end, seed))
