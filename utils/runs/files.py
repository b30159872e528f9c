"""Files that are complete or not there, also when a process dies or the disk is full."""

import errno
import fcntl
import os
import tempfile
from pathlib import Path

from lossyless.atomic import replacing

FULL = (errno.ENOSPC, errno.EDQUOT)  # the disk, or the share of it that one may use


def writable_dir(path: str | Path, setting: str = "paths.data") -> Path:
    """Make the folder of a setting if it is missing and check that files can be written to it.

    Raises
    ------
    OSError
        If it cannot be made or written to.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OSError(
            f"{setting}={str(path)!r} must be a folder that can be written to: {error}. Give "
            "another one or change its permissions."
        ) from error
    return path


def write_text(path: Path, text: str) -> None:
    """Write a file that is either complete or not there, as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that is either complete or not there, also after a power cut."""
    with replacing(path) as file:
        file.write(content)


def overwrite_in_place(path: Path, content: bytes) -> None:
    """Replace what a file holds without asking the disk for space; spaces fill it up.

    Raises ValueError if the file is too small for that.
    """
    size = path.stat().st_size
    if len(content) > size:
        raise ValueError(f"{path} has {size} bytes, too few for {len(content)}")
    with path.open("r+b", buffering=0) as file:
        file.write(content.ljust(size))


def is_locked(path: Path) -> bool:
    """Whether a process, on whatever machine, holds the lock of `filelock.FileLock(path)`."""
    try:
        descriptor = os.open(path, os.O_RDONLY)  # others' files can be read, seldom written to
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
