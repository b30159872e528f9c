"""Files of fitted estimators: checksummed, written atomically, and safe to read."""

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lossyless.atomic import replacing
from lossyless.weights import WeightsError

# A file consists of this magic number, the SHA-256 of what follows it, and a dict saved by torch.
FILE_MAGIC = b"LLmodel1"


def write_model(saved: dict[str, Any], path: str | os.PathLike) -> None:
    """Write a dictionary of tensors and plain data."""
    content = io.BytesIO()
    torch.save(saved, content)
    body = content.getvalue()
    with replacing(path) as file:
        file.write(FILE_MAGIC + hashlib.sha256(body).digest() + body)


def read_model(path: str | os.PathLike) -> dict[str, Any]:
    """Read a dictionary written by `write_model`. Raises `WeightsError` for any other content."""
    content = Path(path).read_bytes()
    digest, body = content[len(FILE_MAGIC) :][:32], content[len(FILE_MAGIC) + 32 :]
    if not content.startswith(FILE_MAGIC):
        raise WeightsError(f"{path} was not written by ArrayCompressor.save")
    if hashlib.sha256(body).digest() != digest:
        raise WeightsError(f"{path} is damaged or truncated: its checksum does not match")
    return torch.load(io.BytesIO(body), map_location="cpu", weights_only=True, mmap=False)


def plain(name: str, value: object) -> bool | int | float | str | None:
    """Convert the value of a parameter to plain data, which is safe to load."""
    if isinstance(value, np.generic):
        value = value.item()
    if name == "random_state" and isinstance(value, np.random.RandomState):
        return None  # used only in training
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(
        f"{name}={value!r} cannot be saved: expected a number, a string or None. Change it with "
        f"`set_params({name}=...)`, which does not affect the fitted model"
    )
