"""What a file says about itself."""

import os
from typing import Any

from lossyless.container import ContainerReader


def describe(path: str | os.PathLike) -> dict[str, Any]:
    """Facts of a file's header and index, of types that JSON holds; no model is needed.

    Raises ContainerError if the file is foreign, or its header or index are damaged.
    """
    with ContainerReader(path) as reader:
        header = reader.header
        n_bytes, n_examples = reader.n_bytes, reader.n_examples
        return {
            "path": str(reader.path),
            "codec": header.codec,
            "fingerprint": header.fingerprint,
            "shape": list(header.shape),
            "dtype": header.dtype,
            "n_examples": n_examples,
            "n_chunks": reader.n_chunks,
            "n_bytes": n_bytes,
            "bits_per_example": 8 * n_bytes / n_examples if n_examples else None,
            "meta": header.meta,
        }
