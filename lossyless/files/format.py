"""What the bytes of compressed files mean.

Little-endian; crc(x, s) is the CRC-32 of x that starts from s:

    header  magic 8s | version u8 | length of the JSON u32 | 0 u32 | JSON, utf-8
            | H = crc(all before, 0) u32
    chunk   "CHNK" | number u32 | first example u64 | n_examples u32 | length of the body u32
            | C = crc(all before, H) u32 | crc(body, C) u32 | body
            body: [varint length | labels: zlib of np.save, [n_examples, ...]]
                  [varint length | names: zlib of a JSON list of n_examples strings] payload
    ...     more chunks, without gaps
    end     "DONE" | n_examples u64 | crc(checksums of all bodies in order, H) u32
            | crc(all before, H) u32; nothing follows

Bodies hold labels if the JSON says `has_labels`, and names if it says `has_names`, which is
left out if false. Chunk heads have checksums of their own, so lengths can be trusted before the
body is read: opening a file walks the heads. Readers ignore keys of the JSON that they do not know,
except for `has_...` flags that are true. Anything else that changes how older files are read raises
`VERSION`. Equal examples make equal files.

Version 1, still read, has no labels in its chunks, its total after the header, and ends in an index
("INDX") that is not needed:

    total   n_examples u64 | checksum of the labels u64 | crc(both, H) u32
"""

import json
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any, NamedTuple

VERSION = 2
MAGIC = b"\x89LSLESS\n"  # not text: a transfer that changes line ends or the high bit breaks it
CHUNK_MARKER, END_MARKER, INDEX_MARKER = b"CHNK", b"DONE", b"INDX"
UINT32_MAX = 2**32 - 1
MAX_HEADER = 1 << 26  # bytes: readers hold the header in memory

PREFIX = struct.Struct("<8sBII")
CRC = struct.Struct("<I")
CHUNK_HEAD = struct.Struct("<4sIQIIII")
END = struct.Struct("<4sQII")
TOTAL = struct.Struct("<QQI")
FLAGS = ("has_labels", "has_names")


class ContainerError(ValueError):
    """A compressed file is damaged, foreign, or of another model."""


@dataclass(frozen=True)
class Header:
    """What a file says about all of its examples.

    Attributes
    ----------
    codec : str
        Name of the format of the payloads.
    fingerprint : str
        Hexadecimal fingerprint of the codec that wrote the payloads.
    shape : tuple of int
        Shape of one decoded example.
    meta : dict
        Anything else that JSON can hold.
    has_labels, has_names : bool
        Whether chunks hold labels and names of the examples.
    version : int
        Version of the layout.
    """

    codec: str
    fingerprint: str
    shape: tuple[int, ...]
    meta: dict[str, Any] = field(default_factory=dict)
    has_labels: bool = False
    has_names: bool = False
    version: int = VERSION

    def to_bytes(self) -> bytes:
        """Raises ContainerError for values that JSON cannot hold, and above `MAX_HEADER` bytes."""
        names = ("codec", "fingerprint", "shape", "meta", "has_labels")
        values = {name: getattr(self, name) for name in names}
        if self.has_names:
            values["has_names"] = True
        try:
            text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ContainerError(f"the header does not fit into JSON: {error}") from error
        if len(text) > MAX_HEADER:
            raise ContainerError(f"the header has {len(text)} bytes, more than {MAX_HEADER}")
        data = PREFIX.pack(MAGIC, VERSION, len(text.encode()), 0) + text.encode()
        return data + CRC.pack(zlib.crc32(data))

    @classmethod
    def from_json(cls, text: bytes, version: int) -> "Header":
        """Raises ValueError, KeyError or TypeError if `text` is not the JSON of a header."""
        values = json.loads(text)
        unknown = [k for k, v in values.items() if k.startswith("has_") and v and k not in FLAGS]
        if unknown or values.get("sections"):
            raise ValueError(f"needs another release: has {unknown or 'adapted tables'}")
        names = ("codec", "fingerprint", "meta")
        shape = tuple(map(int, values["shape"]))
        known = {name: values[name] for name in names}
        known |= {flag: bool(values.get(flag)) for flag in FLAGS}
        return cls(**known, shape=shape, version=version)


class Chunk(NamedTuple):
    """Where a chunk lies in its file, and which examples it holds."""

    number: int
    first: int
    n_examples: int
    length: int
    seed: int
    checksum: int
    start: int

    @property
    def stop(self) -> int:
        """First example after the chunk."""
        return self.first + self.n_examples

    @property
    def end(self) -> int:
        """Byte after the body."""
        return self.start + self.length


def chunk_head(number: int, first: int, n_examples: int, body: bytes, *, seed: int) -> bytes:
    """The bytes of a chunk before its body; `seed` is the checksum of the header."""
    head = CHUNK_HEAD.pack(CHUNK_MARKER, number, first, n_examples, len(body), 0, 0)[:-8]
    crc = zlib.crc32(head, seed)
    return head + CRC.pack(crc) + CRC.pack(zlib.crc32(body, crc))


def end_bytes(n_examples: int, checksums: list[int], *, seed: int) -> bytes:
    """The end of a file with chunks whose bodies have these checksums."""
    bodies = zlib.crc32(b"".join(map(CRC.pack, checksums)), seed)
    end = END.pack(END_MARKER, n_examples, bodies, 0)[:-4]
    return end + CRC.pack(zlib.crc32(end, seed))
