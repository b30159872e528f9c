"""Pretrained weights: downloaded once, verified by SHA-256, loaded strictly."""

import hashlib
import http.client
import os
import sys
import tempfile
import textwrap
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from torch import Tensor, nn

WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys under which checkpoints keep weights
ARCHIVE = b"PK\x03\x04"  # first bytes of a zip archive
MAX_LENGTH = 500  # in characters, for errors about tensors


class WeightsError(RuntimeError):
    """Weights are missing, damaged or unexpected, or do not fit the network."""


def fetch(
    url: str,
    *,
    sha256: str | None,
    name: str | None = None,
    folder: str | os.PathLike | None = None,
) -> Path:
    """Download the file at a URL unless it is already in `folder`, and return its path.

    The file has a temporary name until it is complete and verified.

    Parameters
    ----------
    url : str
    sha256 : hexadecimal checksum, or at least its first 8 digits, as in torchvision's file names;
        None if the publisher provides none.
    name : name of the local file; by default, the last part of the URL.
    folder : by default, the checkpoint folder of `torch.hub`. If `folder` is not writable, the
        download goes to a temporary folder, with a warning.

    Raises WeightsError if the download fails or the checksum of the file differs.
    """
    folder = folder or os.path.join(torch.hub.get_dir(), "checkpoints")
    folder = Path(os.path.expanduser(folder))  # "~" is kept if there is no home folder
    name = name or PurePosixPath(urlparse(url).path).name
    path = folder / name
    if not path.exists():
        path = writable(folder) / name
    if not path.exists():
        _download(url, path, sha256)
    elif sha256 is not None:
        check_sha256(path, sha256)
    return path


def writable(folder: Path) -> Path:
    """Return `folder`, created if necessary, or a temporary folder if it is not writable."""
    reason = "there is no home folder"
    try:
        if folder.parts[:1] != ("~",):
            folder.mkdir(parents=True, exist_ok=True)
            reason = "permission denied"
            if os.access(folder, os.W_OK):
                return folder
    except OSError as error:
        reason = error.strerror
    user = f"-{os.getuid()}" if hasattr(os, "getuid") else ""  # Windows' folder is per user anyway
    temporary = Path(tempfile.gettempdir(), f"lossyless{user}")
    temporary.mkdir(mode=0o700, exist_ok=True)
    warnings.warn(
        f"{folder}: {reason}; weights are downloaded to {temporary} instead. To keep them, set "
        "HOME or TORCH_HOME to a folder that you can write to",
        stacklevel=3,
    )
    return temporary


def _download(url: str, path: Path, sha256: str | None) -> None:
    print(f"downloading {url} to {path}", flush=True)
    try:  # torch downloads to a temporary file, and raises RuntimeError for a wrong checksum
        torch.hub.download_url_to_file(url, str(path), sha256, progress=sys.stderr is not None)
    except (OSError, http.client.HTTPException, RuntimeError) as error:
        raise WeightsError(
            f"{path} does not exist and could not be downloaded from {url} ({error}). Without a "
            f"network, download that file elsewhere and place it at {path}"
        ) from None  # the traceback adds nothing


def check_sha256(path: str | os.PathLike, sha256: str) -> None:
    """Raise WeightsError unless the SHA-256 of a file starts with `sha256`."""
    found = sha256_of(path)
    if not found.startswith(sha256):
        raise WeightsError(
            f"{path} is damaged or is a different file: expected SHA-256 {sha256}, found {found}. "
            "Remove it and download it again"
        )


def sha256_of(path: str | os.PathLike) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_archive(path: str | os.PathLike) -> None:
    """Raise WeightsError if a torch.save archive is damaged, which torch.load does not check.

    Files that are not zip archives pass.
    """
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            if file.read(len(ARCHIVE)) == ARCHIVE:
                raise WeightsError(f"{path} could not be read: the archive is truncated")
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (OSError, MemoryError):
        raise
    except Exception as error:  # damage can cause any type of exception
        raise WeightsError(f"{path} could not be read: the archive is damaged") from error
    if damaged is not None:
        raise WeightsError(
            f"{path} could not be read: it is damaged, or was saved without checksums "
            f"(torch.serialization.set_crc32_options): mismatch in {damaged}. Download it again"
        )


def read_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """Read a file written by torch.save, or an .npz archive.

    Raises WeightsError if the file is missing, damaged, or of another type.
    """
    path = Path(path)
    try:
        check_archive(path)
        content = _read(path)
    except OSError as error:
        raise WeightsError(f"{path} could not be read: {error.strerror or error}") from error
    except (WeightsError, MemoryError):
        raise
    except Exception as error:  # other files can cause any type of exception
        raise WeightsError(
            f"{path} could not be read: it is damaged, or neither a state dict saved by torch.save "
            "nor an .npz file saved by np.savez"
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: expected a state dict, found a {type(content).__name__}.")
    return content


def _read(path: Path) -> Any:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return {name: torch.from_numpy(archive[name]) for name in archive.files}
    return torch.load(path, map_location="cpu", weights_only=True)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint's tensors by name, without wrappers and prefixes added by trainers."""
    content = read_checkpoint(path)
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    return {name.removeprefix("module."): value for name, value in content.items()}


def load_strictly(network: nn.Module, state: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Load tensors into a network.

    Raises a WeightsError that names any missing, unexpected or wrongly shaped tensors.
    """
    try:
        network.load_state_dict(dict(state))
    except RuntimeError as error:
        problems = textwrap.shorten(str(error).partition(":")[2], MAX_LENGTH, placeholder=" ...")
        raise WeightsError(
            f"{path} does not fit {type(network).__name__}: {problems} Use weights for this "
            "network, or the network that these weights belong to."
        ) from error
