"""Writable folders, atomic writes, CSV files and file locks."""

import csv
import io
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
    """Create the folder that a setting names, if needed; raise OSError if it is not writable."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OSError(
            f"{setting}={str(path)!r} must be a writable folder: {error}. Choose another "
            "folder, or change the permissions of this one."
        ) from error
    return path


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically; see `write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: readers see the old content or the new content, never a mixture."""
    with replacing(path) as file:
        file.write(content)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV file, even if a spreadsheet program saved it.

    Such programs add a byte order mark and, in locales with decimal commas, separate columns with
    semicolons. Raises ValueError, naming the file, if the file is not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from error
    if ";" in text.partition("\n")[0]:
        text = text.replace(",", ".").replace(";", ",")
    return list(csv.DictReader(io.StringIO(text)))


def is_locked(path: Path) -> bool:
    """Whether any process, on any machine, holds `filelock.FileLock(path)`."""
    if fcntl is None:
        return path.exists() and not _can_lock(path)
    try:
        descriptor = os.open(path, os.O_RDONLY)  # other users' files are often read-only
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
