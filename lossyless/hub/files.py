"""Files that results are written to: which they may be, and arrays in them."""

import os
from collections.abc import Iterable, Sequence
from typing import IO

import numpy as np
from torch import Tensor

from lossyless.hub import SourceError

PathLike = str | os.PathLike


def check_distinct(outputs: Sequence[PathLike], inputs: Sequence[PathLike] = ()) -> None:
    """That nothing is written to a file that is read, and no two results to one; also by links.

    Raises
    ------
    SourceError
        If so; the message names the file.
    """
    for i, out in enumerate(outputs):
        if any(_are_same(out, path) for path in inputs):
            raise SourceError(f"{out}: is read, and would be overwritten: choose another name")
        if any(_are_same(out, path) for path in outputs[:i]):
            raise SourceError(f"{out}: two results cannot go to one file: choose another name")


def _are_same(a: PathLike, b: PathLike) -> bool:
    if os.path.realpath(a) == os.path.realpath(b):
        return True
    return os.path.exists(a) and os.path.exists(b) and os.path.samefile(a, b)


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
