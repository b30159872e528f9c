"""Download data sets on first use, in one process at a time.

torchvision downloads most of them. `download` is for large files: it resumes interrupted downloads.
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
from scipy.io.matlab import MatReadError
from tqdm import tqdm

from lossyless.printing import print_error
from lossyless.progress import has_terminal
from utils.data.module import DataError
from utils.runs.files import writable_dir

T = TypeVar("T")

# raised by torchvision's data sets if files are missing or damaged or have wrong checksums
UNUSABLE = (
    *(RuntimeError, OSError, EOFError, ValueError, AssertionError),
    *(MatReadError, TypeError, LookupError),  # from scipy, for damaged Stanford Cars tables
)
WAITS = (1, 5, 25)  # seconds before each attempt to resume a broken download
TIMEOUT = 60  # seconds without data after which a download counts as broken
BROKEN = (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)
BLOCK = 1 << 20  # bytes


def open_or_download(
    open_set: Callable[[bool], T], *, name: str, size: str, folder: Path, advice: str = ""
) -> T:
    """Open a data set; download it first if it is not in the folder.

    The argument of `open_set` says whether to download. A folder that cannot be
    written to or locked, e.g. a read-only mount, is only read from. Raises DataError if the data
    set is missing and cannot be downloaded; the message contains `name` and, if a download failed,
    `size` ("11 MB") and `advice`.
    """
    try:
        lock = FileLock(writable_dir(folder) / f".{name.replace(' ', '_')}.lock").acquire()
    except OSError as unwritable:
        try:
            return open_set(False)
        except UNUSABLE as error:
            raise DataError(
                f"{name} is missing or incomplete ({error}) and cannot be downloaded to {folder}: "
                f"{unwritable}"
            ) from error
    with lock:
        try:
            return open_set(False)
        except UNUSABLE as error:
            print(
                f"{name} is missing or incomplete in {folder} ({error}): downloading up to {size}.",
                flush=True,
            )
        try:
            return open_set(True)
        except Exception as error:  # download clients, such as gdown, raise their own errors
            reason = f"{error}"
            if not isinstance(error, DataError):  # its message says what to do
                said = " ".join(str(error).split())  # torchvision's messages span several lines
                reason = (
                    f"{type(error).__name__}: {said}. Check the network, delete leftovers from an "
                    "earlier download, and try again; or put the files there by hand."
                )
            raise DataError(
                f"{name} ({size}) could not be downloaded to {folder}: {reason} {advice}".strip()
            ) from error


def find_or_download(
    content: str, fetch: Callable[[], None], *, folder: Path, **options: str
) -> Path:
    """Path of a file or folder in `folder`; `fetch` downloads it if it is missing.

    For `options` and errors, see `open_or_download`.
    """

    def find(download: bool) -> Path:
        if download:
            fetch()
        if not (folder / content).exists():
            raise FileNotFoundError(f"{folder / content} is missing")
        return folder / content

    return open_or_download(find, folder=folder, **options)


def download_zip(url: str, folder: Path, *, md5: str, n_bytes: int) -> None:
    """Download a zip file of size `n_bytes` into a folder and unpack it; see `download`, `unpack`.

    Raises DataError before downloading if there is too little disk space. The contents are assumed
    to need as much space as the archive, because images are already compressed.
    """
    archive = folder / PurePosixPath(url).name
    needed = 2 * n_bytes - _n_bytes(archive) - _n_bytes(_part(archive))
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"{archive.name} and its contents need {needed / 1e9:.1f} GB, but {folder} has "
            f"{free / 1e9:.1f} GB left: free up some space, or set paths.data to another folder."
        )
    if not archive.exists():
        download(url, archive, md5=md5)
    unpack(archive, folder)


def download(url: str, path: Path, *, md5: str) -> None:
    """Download a file to `<path>.part`, and rename it when it is complete and its MD5 is correct.

    The next call resumes an interrupted download. Raises DataError if the server refuses the
    request, if the connection breaks repeatedly, or if the MD5 is wrong (the file is then deleted).
    """
    part = _part(path)
    waits, most = iter(WAITS), _n_bytes(part)
    while True:
        try:
            _download_rest(url, part)
            break
        except requests.RequestException as error:
            if _n_bytes(part) > most:  # do not give up while there is progress
                waits, most = iter(WAITS), _n_bytes(part)
            has_refused = isinstance(error, requests.HTTPError) and error.response.status_code < 500
            wait = None if has_refused else next(waits, None)
            if wait is None:
                raise DataError(
                    f"{url}: {error}. Try again to resume the download, or get the file "
                    f"elsewhere and save it as {path}."
                ) from error
            print_error(f"{url}: {error}; resuming in {wait} s")
            time.sleep(wait)
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != md5:
        part.unlink()
        raise DataError(
            f"{url}: the download has MD5 {found} instead of {md5} and was deleted: try again."
        )
    part.replace(path)


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _n_bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _download_rest(url: str, part: Path) -> None:
    """Append the missing bytes, or download the whole file if the server cannot resume."""
    n_bytes = _n_bytes(part)
    headers = {"Accept-Encoding": "identity"}  # uncompressed, so that sizes are those of the file
    if n_bytes:
        headers["Range"] = f"bytes={n_bytes}-"
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if n_bytes and response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # already complete
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            n_bytes = 0
        n_total = n_bytes + int(response.headers["Content-Length"])
        bar = tqdm(
            total=n_total, initial=n_bytes, desc=part.stem, unit="B", unit_scale=True,
            mininterval=0.1 if has_terminal() else 60,  # logs get one line a minute
            disable=sys.stderr is None,
        )  # fmt: skip
        file = part.open("ab" if n_bytes else "wb")
        with bar, file, contextlib.suppress(*BROKEN):
            for block in response.iter_content(BLOCK):
                file.write(block)
                bar.update(len(block))
    if _n_bytes(part) < n_total:
        raise requests.ConnectionError(f"stopped after {_n_bytes(part):,} of {n_total:,} bytes")


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip file into a folder; its contents appear there only once they are complete.

    Files are added to existing folders. The zip file is deleted, even if it is damaged, in which
    case DataError is raised.
    """
    temporary = folder / f".unpacking_{archive.name}"
    shutil.rmtree(temporary, ignore_errors=True)  # left by an interrupted run
    try:
        with zipfile.ZipFile(archive) as file:
            file.extractall(temporary)
    except (zipfile.BadZipFile, zlib.error, FileNotFoundError, EOFError) as error:
        archive.unlink(missing_ok=True)
        raise DataError(
            f"{archive} was incomplete or damaged ({error}) and was deleted: try again."
        ) from error
    for content in temporary.iterdir():
        target = folder / content.name
        if target.is_dir():
            shutil.copytree(content, target, dirs_exist_ok=True, copy_function=os.replace)
        else:
            content.replace(target)
    shutil.rmtree(temporary)
    archive.unlink()
