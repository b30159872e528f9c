"""Files in the format of the paper's code, a stream for each vector; big endian:

    u32     number of streams
    u32 ..  per stream: number of bytes, and as many bytes

There are no checksums. Most changed bits show all the same, because only intact streams lead the
decoder to the state in which the encoder began (31 bits). But the digits of symbols beyond the
tables are written as they are: a change there shows nowhere.
"""

import os
import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from lossyless.atomic import replacing
from lossyless.container import ContainerError

UINT32 = struct.Struct(">I")
WORD = 4  # bytes; streams are words, and at least the coder's final state of two of them
MIN_STREAM = 2 * WORD
MAX_STREAM = 1 << 30  # no vector has that many bytes: the length of a stream is damaged


def write_official(path: str | os.PathLike, streams: Iterable[bytes]) -> int:
    """Write a file, atomically and in constant memory; the number of streams."""
    n_streams = 0
    with replacing(path) as file:
        file.write(UINT32.pack(0))
        for stream in streams:
            file.write(UINT32.pack(len(stream)) + stream)
            n_streams += 1
        file.seek(0)
        file.write(UINT32.pack(n_streams))
    return n_streams


def read_official(path: str | os.PathLike) -> Iterator[bytes]:
    """The streams of a file, one after the other.

    Raises
    ------
    ContainerError
        The file is cut, longer than its streams, or foreign.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        n_streams = _read_uint32(file, path, "the number of vectors")
        for i in range(n_streams):
            length = _read_uint32(file, path, f"the size of vector {i} of {n_streams}")
            if not MIN_STREAM <= length <= size - file.tell():
                raise ContainerError(
                    f"{path}: vector {i} of {n_streams} would have {length} bytes of the "
                    f"{size - file.tell()} left: the file is cut, damaged, or in another format"
                )
            yield file.read(length)
        if file.tell() != size:
            raise ContainerError(
                f"{path}: {size - file.tell()} bytes follow the {n_streams} vectors: the file is "
                "damaged, or in another format"
            )


def is_official(path: str | os.PathLike) -> bool:
    """Whether a file looks like one in this format; a damaged one may, a container does not.

    Looks at the number of streams and the size of the first.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(2 * UINT32.size)
    if len(head) < 2 * UINT32.size:
        return head == UINT32.pack(0)
    n_streams, length = (value for (value,) in UINT32.iter_unpack(head))
    is_stream = length % WORD == 0 and MIN_STREAM <= length < MAX_STREAM
    return is_stream and 1 <= n_streams <= size // UINT32.size


def _read_uint32(file: BinaryIO, path: str | os.PathLike, what: str) -> int:
    data = file.read(UINT32.size)
    if len(data) < UINT32.size:
        raise ContainerError(f"{path}: ends before {what}: the file is cut")
    return UINT32.unpack(data)[0]
