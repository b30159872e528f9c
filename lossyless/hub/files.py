"""Files that are there completely or not at all, and arrays that are written piece by piece."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from torch import Tensor


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """A file beside `path` to write to, which takes its name when the block ends without error."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_npy(file: IO[bytes], rows: Iterable[Tensor], *, n_columns: int) -> int:
    """Write batches of rows [b, n_columns] as one float32 array in the .npy format; their number.

    Takes no more memory than a batch.
    """
    _write_header(file, 0, n_columns)
    n = 0
    for batch in rows:
        file.write(batch.numpy().astype("<f4", copy=False).tobytes())
        n += len(batch)
    file.seek(0)
    _write_header(file, n, n_columns)  # numpy leaves room for the number of rows to grow
    return n


def _write_header(file: IO[bytes], n: int, n_columns: int) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": (n, n_columns)}
    np.lib.format.write_array_header_1_0(file, header)
