"""Atomic writes: files have temporary names until they are complete; errors give the final name."""

import contextlib
import errno
import io
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Open a temporary file for writing, and rename it to `path` if the block raises no error.

    On error, the temporary file is removed, and an existing file is left unchanged. If `path` is a
    symbolic link, its target is replaced and the link is kept. The temporary file is locked and
    named `<name>.<process>-<random>.tmp`. If a writer is killed, its temporary file remains, but
    without the lock; the next writer of the same `path` removes it, except on Windows and on file
    systems without locks.

    Raises an OSError that names `path` if it cannot be written, for example because its folder is
    missing, it is not a regular file, or the disk is full.
    """
    target = file_to_replace(path)
    path = Path(path)
    temporary, file = _create_temporary(target, path)
    try:
        with file:
            yield file
            file.flush()
            with naming_errors(path):
                os.fsync(file.fileno())
            if fcntl is None:
                file.close()  # Windows cannot rename open files
            os.replace(temporary, target)  # still locked: otherwise, other writers would remove it
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def file_to_replace(path: str | os.PathLike) -> Path:
    """Return the file that `replacing` replaces: `path`, or its target if it is a symbolic link.

    Raises an OSError that names `path` if it is not a regular file or its folder does not exist.
    """
    path = Path(path)
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    if not target.parent.is_dir():
        reason = f"the folder {target.parent} does not exist: create it first"
        raise FileNotFoundError(errno.ENOENT, reason, str(path))
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return target
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder, not a file", str(path))
    if not stat.S_ISREG(found.st_mode):
        reason = "is not a regular file, so it cannot be replaced atomically"
        raise OSError(errno.EINVAL, reason, str(path))
    return target


def check_distinct(
    outputs: Iterable[str | os.PathLike | None], inputs: Iterable[str | os.PathLike | None]
) -> None:
    """Raise SameFileError if an output is also an input or another output, even via a symlink."""
    outputs = [path for path in outputs if path is not None]
    targets = [os.path.realpath(path) for path in (*outputs, *inputs) if path is not None]
    for out in outputs:
        if targets.count(os.path.realpath(out)) > 1:
            raise shutil.SameFileError(
                f"{out}: would overwrite an input or another output; choose another name"
            )


@contextlib.contextmanager
def naming_errors(path: str | os.PathLike) -> Iterator[None]:
    """Add a file's name to system errors that lack one, such as those from `write` and `fsync`."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def _create_temporary(target: Path, path: Path) -> tuple[Path, BinaryIO]:
    """Create and lock a file next to `target`. Write errors name `path`, not that file."""
    _remove_abandoned(target)
    while True:
        temporary = target.with_name(f"{target.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
        # readable, because numpy bypasses Python's `write` for write-only files, and its errors
        # then have neither a file name nor a reason
        file = io.BufferedRandom(_NamedFile(temporary, final=path))
        with contextlib.suppress(OSError):  # without locks, stale files are never removed
            _lock(file)
        if os.fstat(file.fileno()).st_nlink:
            return temporary, file
        file.close()  # another writer of `target` removed it just before it was locked


class _NamedFile(io.FileIO):
    """A new file. Errors raised when creating or writing it name the final file."""

    def __init__(self, path: Path, *, final: Path):
        self._final = final
        try:
            super().__init__(os.fspath(path), "x+")
        except OSError as error:
            raise OSError(error.errno, error.strerror, os.fspath(final)) from error

    def write(self, data) -> int:
        with naming_errors(self._final):
            return super().write(data)


def _lock(file: BinaryIO) -> None:
    """Lock a file. Raises OSError if it is already locked or cannot be locked."""
    if fcntl is None:
        raise OSError(errno.ENOSYS, "no file locks on Windows")
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove_abandoned(target: Path) -> None:
    pattern = re.compile(re.escape(target.name) + r"\.\d+-[0-9a-f]{8}\.tmp")
    for other in target.parent.iterdir():
        if pattern.fullmatch(other.name):
            # an OSError means that the file is locked or already removed
            with contextlib.suppress(OSError), open(other, "rb") as file:
                _lock(file)
                other.unlink()


def _sync_folder(folder: Path) -> None:
    """Make a rename in a folder survive a power failure."""
    if fcntl is None:
        return  # Windows cannot open folders
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with naming_errors(folder):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
