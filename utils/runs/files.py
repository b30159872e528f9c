"""Writable folders, atomic writes and file locks."""

import os
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

from lossyless.atomic import replacing

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None


def writable_dir(path: str | Path, setting: str = "paths.data") -> Path:
    """Create the folder of a setting if it is missing and check that it is writable.

    Raises
    ------
    OSError
        If it cannot be created or written to.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OSError(
            f"{setting}={str(path)!r} must be a writable folder: {error}. Choose another one or "
            "change its permissions."
        ) from error
    return path


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, see `write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: readers find the old content or the new one, never a part of it."""
    with replacing(path) as file:
        file.write(content)


def is_locked(path: Path) -> bool:
    """Whether a process, on any machine, holds the lock of `filelock.FileLock(path)`."""
    if fcntl is None:
        return path.exists() and not _can_lock(path)
    try:
        descriptor = os.open(path, os.O_RDONLY)  # files of other users are often read-only
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _can_lock(path: Path) -> bool:
    try:
        with FileLock(path, timeout=0):
            return True
    except Timeout:
        return False
