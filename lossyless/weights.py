"""Files of pretrained weights: downloaded once, and checked against their SHA-256.

Where the publisher gives no checksum, the first use is trusted: the checksum of that file is
written beside it (FILE.sha256, as `sha256sum` does), and later uses are checked against that.
"""

import hashlib
import http.client
import os
import re
import tempfile
import warnings
from pathlib import Path, PurePosixPath
from urllib.parse import urlparse

import torch

from lossyless.atomic import replacing


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
        None where the publisher gives none: then the file must stay that of the first use.
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
    record = path.with_name(f"{path.name}.sha256")
    expected = _first_seen(record) if sha256 is None else sha256
    advice = f", or remove {record} to trust the new one" if sha256 is None else ""
    if path.exists():
        _check(path, expected, advice)
    else:
        _download(url, path, expected, advice)
    if expected is None:
        _note(path, record)
    return path


def _download(url: str, path: Path, sha256: str | None, advice: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as temporary:
        part = Path(temporary, path.name)
        try:
            torch.hub.download_url_to_file(url, str(part))
        except (OSError, http.client.HTTPException) as error:
            raise WeightsError(
                f"{path}: not there, and cannot be downloaded from {url} ({error}). Without a "
                f"network, get that file elsewhere and place it at {path}"
            ) from None  # which says no more
        _check(part, sha256, advice)
        os.replace(part, path)


def check_sha256(path: str | os.PathLike, sha256: str) -> None:
    """Raises WeightsError unless the SHA-256 of a file starts with `sha256`, 8 digits or more."""
    _check_digits(sha256)
    _check(path, sha256)


def _check(path: str | os.PathLike, sha256: str | None, advice: str = "") -> None:
    found = None if sha256 is None else sha256_of(path)
    if sha256 is not None and not found.startswith(sha256.lower()):
        raise WeightsError(
            f"{path}: is not the file expected, or is damaged: its SHA-256 is {found}, expected "
            f"{sha256}. Remove it and get it anew{advice}"
        )


def sha256_of(path: str | os.PathLike) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_digits(sha256: str) -> None:
    if not re.fullmatch(r"[0-9a-fA-F]{8,64}", sha256):
        raise ValueError(f"sha256: expected 8 to 64 hexadecimal digits, found {sha256!r}")


def _first_seen(record: Path) -> str | None:
    """The checksum that was noted at the first use; None before it."""
    if not record.is_file():
        return None
    found = record.read_text(errors="replace")
    if not re.match(r"[0-9a-f]{64}\b", found):
        raise WeightsError(
            f"{record}: expected the SHA-256 of the file beside it, found {found[:70]!r}. Remove "
            "it to trust that file as it is"
        )
    return found[:64]


def _note(path: Path, record: Path) -> None:
    """Write the checksum of a file beside it, where that is possible."""
    try:
        with replacing(record) as file:
            file.write(f"{sha256_of(path)}  {path.name}\n".encode())
    except OSError as error:
        warnings.warn(
            f"{record} cannot be written ({error}): whether {path.name} stays the same is not "
            "checked",
            stacklevel=3,
        )
