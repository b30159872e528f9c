"""Files of pretrained weights: downloaded once, and checked against their SHA-256."""

import hashlib
import http.client
import os
import re
import tempfile
from pathlib import Path, PurePosixPath
from urllib.parse import urlparse

import torch


class WeightsError(RuntimeError):
    """Weights are missing, are not the ones that were asked for, or do not fit."""


def fetch(
    url: str,
    *,
    sha256: str | None,
    name: str | None = None,
    folder: str | os.PathLike | None = None,
) -> Path:
    """The file at a URL, from `folder` if it is there, otherwise downloaded to it.

    The file takes its name when it is complete and its checksum right.

    Parameters
    ----------
    url : str
    sha256 : hexadecimal checksum, or its first 8 digits or more, as in torchvision's file names;
        None where the publisher gives none: then nothing is checked.
    name : of the local file; by default the last part of the URL.
    folder : by default where `torch.hub` keeps checkpoints.

    Raises
    ------
    WeightsError
        The file cannot be downloaded, or has another checksum.
    """
    if sha256 is not None:
        _check_digits(sha256)
    folder = Path(torch.hub.get_dir(), "checkpoints") if folder is None else Path(folder)
    path = folder / (name or PurePosixPath(urlparse(url).path).name)
    if path.exists():
        if sha256 is not None:
            check_sha256(path, sha256)
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=folder) as temporary:
        part = Path(temporary, path.name)
        try:
            torch.hub.download_url_to_file(url, str(part))
        except (OSError, http.client.HTTPException) as error:
            raise WeightsError(
                f"{path}: not there, and cannot be downloaded from {url} ({error}). Without a "
                f"network, get that file elsewhere and place it at {path}"
            ) from error
        if sha256 is not None:
            check_sha256(part, sha256)
        os.replace(part, path)
    return path


def check_sha256(path: str | os.PathLike, sha256: str) -> None:
    """Raises WeightsError unless the SHA-256 of a file starts with `sha256`, 8 digits or more."""
    _check_digits(sha256)
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(sha256.lower()):
        raise WeightsError(
            f"{path}: is not the file expected, or is damaged: its SHA-256 is {found}, expected "
            f"{sha256}. Remove it and get it anew"
        )


def _check_digits(sha256: str) -> None:
    if not re.fullmatch(r"[0-9a-fA-F]{8,64}", sha256):
        raise ValueError(f"sha256: expected 8 to 64 hexadecimal digits, found {sha256!r}")
