"""Arrays that are written piece by piece."""

from collections.abc import Iterable
from typing import IO

import numpy as np
from torch import Tensor


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
