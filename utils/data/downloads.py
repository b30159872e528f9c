"""First use of a data set: say what is downloaded and how large it is, one process at a time.

Downloading, progress bars and checksums are torchvision's.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from utils.data.base import DataError
from utils.files import writable_dir

T = TypeVar("T")

# What torchvision's data sets raise if files are missing, differ from their checksum or are damaged
UNUSABLE = (RuntimeError, FileNotFoundError, EOFError, ValueError, AssertionError)


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
        except Exception as error:  # clients have errors of their own, such as gdown's
            raise DataError(
                f"{name} ({size}) could not be downloaded to {folder}: {type(error).__name__}: "
                f"{error}. Check the network, delete what an earlier download left of it there, "
                f"and run again; or put its files there by hand. {advice}".strip()
            ) from error
