"""Atomic writes: files have a temporary name until they are complete, and errors name them."""

import contextlib
import errno
import fcntl
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_ATTEMPTS = 100
_MAX_PREFIX = 200  # bytes of a temporary name that come from the final one; file systems take 255


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file to write to, which gets the name `path` when the block ends without an error.

    Otherwise it is removed, and an existing `path` stays as it was. If `path` is a symbolic link,
    its target is replaced and the link is kept. Until then the file is called
    `<name>.<process>-<random>.tmp`, and locked. Files that killed writers of the same `path` left
    behind are no longer locked, and are removed (not on file systems without locks).

    Raises OSError, naming `path`, if it cannot be written: its folder is missing, it is no ordinary
    file, its name is too long, or the disk is full.
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
            os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def file_to_replace(path: str | os.PathLike) -> Path:
    """The file that `replacing` replaces: `path`, or the target of a symbolic link.

    Raises OSError, naming `path`, if it is no ordinary file: a folder, pipe or device; or the
    standard output or error of this process, even if they go to a file.
    """
    path = Path(path)
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return target
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder, not a file to write", str(path))
    if not stat.S_ISREG(found.st_mode) or _is_standard_output(found):
        reason = "is no ordinary file, which could be replaced by the complete result"
        raise OSError(errno.EINVAL, reason, str(path))
    return target


def _is_standard_output(found: os.stat_result) -> bool:
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):  # closed
            if os.path.samestat(os.fstat(descriptor), found):
                return True
    return False


@contextlib.contextmanager
def naming_errors(path: str | os.PathLike) -> Iterator[None]:
    """Add a file's name to errors of the system without one, as those of `write` and `fsync`."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def _create_temporary(target: Path, path: Path) -> tuple[Path, BinaryIO]:
    """A new, locked file beside `target`, whose errors name `path`."""
    prefix = _prefix(target)
    _remove_abandoned(target.parent, prefix)
    for _ in range(_ATTEMPTS):
        temporary = target.with_name(f"{prefix}{os.getpid()}-{os.urandom(4).hex()}.tmp")
        # readable, too: in write-only files numpy writes past Python, and its errors have neither
        # a name nor a reason
        file = io.BufferedRandom(_NamedFile(temporary, final=path))
        with contextlib.suppress(OSError):  # file systems without locks: nothing is removed there
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file.fileno()).st_nlink:
            return temporary, file
        file.close()  # another writer of `target` removed it just before it was locked
    raise FileExistsError(f"{path}: other writers keep removing temporary files beside it")


class _NamedFile(io.FileIO):
    """A new file whose write errors name the final file."""

    def __init__(self, path: Path, *, final: Path):
        super().__init__(os.fspath(path), "x+")
        self._final = final

    def write(self, data) -> int:
        with naming_errors(self._final):
            return super().write(data)


def _prefix(path: Path) -> str:
    """Prefix of the names of temporary files beside `path`."""
    name = path.name
    while len(os.fsencode(name)) > _MAX_PREFIX:
        name = name[:-1]
    return name + "."


def _remove_abandoned(folder: Path, prefix: str) -> None:
    suffix = ".tmp"
    for other in folder.iterdir():
        middle = other.name.removeprefix(prefix).removesuffix(suffix)
        if other.name != prefix + middle + suffix or not _is_ours(middle):
            continue
        with contextlib.suppress(OSError), open(other, "rb") as file:  # locked, or already gone
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            other.unlink()


def _is_ours(middle: str) -> bool:
    """Whether a name's part between the target's name and .tmp has this module's pattern."""
    process, _, random = middle.partition("-")
    return process.isdecimal() and len(random) == 8 and set(random) <= set("0123456789abcdef")


def _sync_folder(folder: Path) -> None:
    """Make a rename in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with naming_errors(folder):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
