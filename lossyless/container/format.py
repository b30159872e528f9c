"""The layout of files of compressed examples, and their header.

Little-endian layout; `crc(x, s)` is the CRC-32 of x that starts from s:

    header  magic 8s | version u8 | length of the JSON u32 | length of the sections u32
            | JSON, utf-8 | sections | crc(all before, 0) u32
    total   n_examples u64 | labels_checksum u64 | crc(both, H) u32
    chunk   "CHNK" | number u32 | first example u64 | n_examples u32 | length u32
            | C = crc(all before, H) u32 | crc(payload, C) u32 | payload
    ...     more chunks, without gaps
    index   "INDX" | n_chunks u32 | per chunk: offset u64, n_examples u32
            | crc(index up to here, H) u32 | offset of the index u64 | end magic 8s

H is the header's checksum, and the header holds an id drawn for each file, so that a chunk of
another file is detected even when both files come from the same model. The head of a chunk has a
checksum of its own: a length can be trusted before the payload is read. The total and the first
example of each chunk say which examples are missing when chunks or the index are lost.
`labels_checksum` is of the labels that were written with the file, or says that there are none.
Readers ignore keys of the header that they do not know; whatever changes how older keys or chunks
are read raises `VERSION`.

A file costs about 220 bytes and 44 bytes per chunk beyond its payloads and sections.
"""

import json
import operator
import secrets
import struct
import zlib
from dataclasses import dataclass, field, fields
from itertools import accumulate
from typing import Any

from lossyless.files.format import ContainerError

VERSION = 1
MAGIC = b"\x89LSLESS\n"  # not text: a transfer that changes line ends or the high bit breaks it
END_MAGIC = b"LSLESS\n\x89"
CHUNK_MARKER, INDEX_MARKER = b"CHNK", b"INDX"
UINT32_MAX = 2**32 - 1
MAX_EXAMPLES = 2**63 - 1  # of a file: what int64 can count
# instead of the checksum of labels, which is below 2^32
NO_LABELS = 1 << 32
UNKNOWN_LABELS = NO_LABELS + 1
MAX_HEADER = 1 << 26  # bytes: readers hold the header in memory

PREFIX = struct.Struct("<8sBII")
CRC = struct.Struct("<I")
TOTAL = struct.Struct("<QQ")
CHUNK = struct.Struct("<4sIQII")
INDEX = struct.Struct("<4sI")
INDEX_ENTRY = struct.Struct("<QI")
FOOTER = struct.Struct("<IQ8s")
CHUNK_HEAD_SIZE = CHUNK.size + 2 * CRC.size


def chunk_head(
    number: int, first: int, n_examples: int, length: int, *, seed: int
) -> tuple[bytes, int]:
    """Head of a chunk up to its own checksum, and that checksum, from which the payload's starts.

    seed : checksum of the header.
    """
    head = CHUNK.pack(CHUNK_MARKER, number, first, n_examples, length)
    crc = zlib.crc32(head, seed)
    return head + CRC.pack(crc), crc


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
    sections : dict of str to bytes
        Binary parts of the header by their names.
    id : str
        Drawn at random for each file; binds the chunks to it.
    """

    fingerprint: str
    codec: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    meta: dict[str, Any] = field(default_factory=dict)
    sections: dict[str, bytes] = field(default_factory=dict)
    id: str = field(default_factory=lambda: secrets.token_hex(8))

    def to_bytes(self) -> bytes:
        """Prefix, JSON, sections and checksum.

        Raises ContainerError for a value that JSON cannot hold, and above `MAX_HEADER` bytes.
        """
        values = {key.name: getattr(self, key.name) for key in fields(self)}
        values["sections"] = [[name, len(data)] for name, data in self.sections.items()]
        try:
            text = json.dumps(
                values, sort_keys=True, separators=(",", ":"), allow_nan=False
            ).encode()
        except (TypeError, ValueError) as error:
            raise ContainerError(f"the header does not fit into JSON: {error}") from error
        sections = b"".join(self.sections.values())
        if len(text) + len(sections) > MAX_HEADER:
            raise ContainerError(
                f"the header has {len(text)} bytes of JSON and {len(sections)} of sections, more "
                f"than {MAX_HEADER}"
            )
        data = PREFIX.pack(MAGIC, VERSION, len(text), len(sections)) + text + sections
        return data + CRC.pack(zlib.crc32(data))

    @classmethod
    def from_bytes(cls, text: bytes, sections: bytes) -> "Header":
        """Raises ValueError, KeyError or TypeError when `text` is not the JSON of a header."""
        values = json.loads(text)
        values["shape"] = tuple(map(operator.index, values["shape"]))
        names, sizes = [*zip(*values["sections"], strict=True)] or [(), ()]
        if sum(sizes) != len(sections) or any(size < 0 for size in sizes):
            raise ValueError(f"sections of {sizes} bytes in {len(sections)}")
        ends = [*accumulate(sizes)]
        spans = zip([0, *ends], ends, strict=False)
        parts = [sections[slice(*span)] for span in spans]
        values["sections"] = dict(zip(names, parts, strict=True))
        return cls(**{key.name: values[key.name] for key in fields(cls)})
