"""First use of a data set: say what is downloaded and how large it is, one process at a time.

Downloading, progress bars and checksums are torchvision's; `download` is for what torchvision does
not have, or what is so large that an interrupted download must go on where it stopped.
"""

import contextlib
import hashlib
import os
import shutil
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TypeVar

import requests
from filelock import FileLock
from tqdm import tqdm

from utils.data.module import DataError
from utils.runs.files import writable_dir

T = TypeVar("T")

# What torchvision's data sets raise if files are missing, differ from their checksum or are damaged
UNUSABLE = (RuntimeError, FileNotFoundError, EOFError, ValueError, AssertionError)
WAITS = (1, 5, 25)  # seconds before each new attempt to go on with a broken download
TIMEOUT = 60  # seconds without an answer or data that break a download
BROKEN = (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)
BLOCK = 1 << 20  # bytes


def open_or_download(
    open_set: Callable[[bool], T], *, name: str, size: str, folder: Path, advice: str = ""
) -> T:
    """Open a data set that is on disk, or download it first.

    Parameters
    ----------
    open_set : callable (download: bool) -> data set, as torchvision's classes
    name, size : for the message, e.g. "MNIST" and "11 MB".
    folder : where its files are or will be.
    advice : what to do where it cannot be downloaded.

    Raises
    ------
    DataError
        If it is neither there nor can it be downloaded.
    """
    if folder.is_dir() and not os.access(folder, os.W_OK):  # shared by many: nothing to lock
        try:
            return open_set(False)
        except UNUSABLE as error:
            raise DataError(
                f"{name} is not (completely) in {folder}, and nothing can be downloaded there, for "
                f"the folder cannot be written to: {error}. Set paths.data to another one."
            ) from error
    folder = writable_dir(folder)
    with FileLock(folder / f".{name.replace(' ', '_')}.lock"):
        try:
            return open_set(False)
        except UNUSABLE:
            pass
        print(
            f"{name} is not (completely) unpacked in {folder}: downloading what is missing of "
            f"{size}.",
            flush=True,
        )
        try:
            return open_set(True)
        except DataError as error:  # says itself what to do
            raise DataError(
                f"{name} ({size}) could not be downloaded to {folder}: {error} {advice}".strip()
            ) from error
        except Exception as error:  # clients have errors of their own, such as gdown's
            raise DataError(
                f"{name} ({size}) could not be downloaded to {folder}: {type(error).__name__}: "
                f"{error}. Check the network, delete what an earlier download left of it there, "
                f"and run again; or put its files there by hand. {advice}".strip()
            ) from error


def download_zip(url: str, folder: Path, *, md5: str, n_bytes: int) -> None:
    """Download a zip file into a folder and unpack it there; see `download` and `unpack`.

    Parameters
    ----------
    n_bytes : of the zip file. Its content is taken to be as large: images are not compressible.

    Raises
    ------
    DataError
        There is too little room on the disk, which is found out before anything is downloaded.
    """
    archive = folder / PurePosixPath(url).name
    needed = 2 * n_bytes - _n_bytes(archive) - _n_bytes(_part(archive))
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"{archive.name} and what it contains need {needed / 1e9:.1f} GB, but {folder} has "
            f"{free / 1e9:.1f} GB left: make room, or set paths.data to another folder."
        )
    if not archive.exists():
        download(url, archive, md5=md5)
    unpack(archive, folder)


def download(url: str, path: Path, *, md5: str) -> None:
    """Download a file, which takes its name when it is complete and its MD5 is right.

    Until then it is `<name>.part`, which the next call goes on with.

    Raises
    ------
    DataError
        The server does not give the file, the connection breaks again and again, or the MD5 is
        another one. In the last case, what was downloaded is deleted.
    """
    part = _part(path)
    waits, most = iter(WAITS), _n_bytes(part)
    while True:
        try:
            _download_rest(url, part)
            break
        except requests.RequestException as error:
            if _n_bytes(part) > most:  # a break once in a while is no reason to give up
                waits, most = iter(WAITS), _n_bytes(part)
            has_refused = isinstance(error, requests.HTTPError) and error.response.status_code < 500
            wait = None if has_refused else next(waits, None)
            if wait is None:
                raise DataError(
                    f"{url}: {error}. Run again to go on where it stopped, or get the file "
                    f"elsewhere and put it there as {path}."
                ) from error
            print(f"{url}: {error}; going on in {wait} s", file=sys.stderr, flush=True)
            time.sleep(wait)
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != md5:
        part.unlink()
        raise DataError(
            f"{url}: what was downloaded has the MD5 {found}, expected {md5}, and is deleted: run "
            "again."
        )
    part.replace(path)


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _n_bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _download_rest(url: str, part: Path) -> None:
    """Download what follows the bytes that are in the file, or all if the server cannot do that."""
    n_bytes = _n_bytes(part)
    # no compression on the way: it would be the compressed bytes that are counted
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={n_bytes}-"} if n_bytes else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if n_bytes and response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is left
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            n_bytes = 0
        n_total = n_bytes + int(response.headers["Content-Length"])
        bar = tqdm(
            total=n_total, initial=n_bytes, desc=part.stem, unit="B", unit_scale=True,
            mininterval=0.1 if sys.stderr.isatty() else 60,  # a line a minute in a log
        )  # fmt: skip
        mode = "ab" if n_bytes else "wb"
        with bar, part.open(mode) as file, contextlib.suppress(*BROKEN):
            for block in response.iter_content(BLOCK):
                file.write(block)
                bar.update(len(block))
    if _n_bytes(part) < n_total:
        raise requests.ConnectionError(f"broke off after {_n_bytes(part):,} of {n_total:,} bytes")


def unpack(archive: Path, folder: Path) -> None:
    """Move what a zip file contains into a folder, and delete the file.

    It appears there when all of it is unpacked. Folders that are there already are added to.

    Raises
    ------
    DataError
        The file is damaged; it is deleted.
    """
    temporary = folder / f".unpacking_{archive.name}"
    shutil.rmtree(temporary, ignore_errors=True)  # of an earlier time that was interrupted
    try:
        with zipfile.ZipFile(archive) as file:
            file.extractall(temporary)
    except (zipfile.BadZipFile, zlib.error, FileNotFoundError, EOFError) as error:
        archive.unlink(missing_ok=True)
        raise DataError(
            f"{archive} was not completely downloaded ({error}) and is deleted: run again."
        ) from error
    for content in temporary.iterdir():
        target = folder / content.name
        if target.is_dir():
            shutil.copytree(content, target, dirs_exist_ok=True, copy_function=os.replace)
        else:
            content.replace(target)
    shutil.rmtree(temporary)
    archive.unlink()
