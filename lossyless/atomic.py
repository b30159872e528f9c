"""Files that have a temporary name until they are complete, and errors that name them."""

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
_MAX_PREFIX = 200  # bytes of a temporary name that are of the final one; file systems take 255


def create_temporary(path: Path) -> tuple[Path, BinaryIO]:
    """A new file `<name>.<process>-<random>.tmp` beside `path`, locked while it is open.

    Errors of writing to it name `path`. Of a long name, its first `_MAX_PREFIX` bytes are taken.

    Removes what earlier writers of the same `path` left behind when they were killed: their files
    are not locked any more. (Where a file system has no locks, nothing is removed.)

    Raises OSError if `path` cannot be a file: its folder is missing, it is a folder itself, or its
    name is too long.
    """
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(path).st_mode):  # unlike `is_dir`, fails if the name is too long
            raise IsADirectoryError(errno.EISDIR, "is a folder, not a file to write", str(path))
    prefix = _prefix(path)
    _remove_abandoned(path.parent, prefix)
    for _ in range(_ATTEMPTS):
        temporary = path.with_name(f"{prefix}{os.getpid()}-{os.urandom(4).hex()}.tmp")
        # to read and write: into files opened to write only, numpy writes past Python, whose
        # errors it then replaces by some without a name and a reason
        file = io.BufferedRandom(_NamedFile(temporary, final=path))
        with contextlib.suppress(OSError):  # no locks here: then nobody can take it for abandoned
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file.fileno()).st_nlink:
            return temporary, file
        file.close()  # another writer of `path` removed it in the instant before it was locked
    raise FileExistsError(f"{path}: other writers keep removing temporary files beside it")


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file to write to, which takes the name `path` when the block ends without an error.

    Otherwise it is removed, and whatever had the name before is left untouched. Errors of writing
    to it, such as that of a full disk, name `path`.
    """
    path = Path(path)
    temporary, file = create_temporary(path)
    try:
        with file:
            yield file
            file.flush()
            publish(file, temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def publish(file: BinaryIO, temporary: Path, path: Path) -> None:
    """Give a file, which was flushed, its final name once the disk has it.

    Whoever calls this calls `sync_folder` when the file is closed.
    """
    with naming_errors(path):
        os.fsync(file.fileno())
    os.replace(temporary, path)


def sync_folder(folder: Path) -> None:
    """Make a rename in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with naming_errors(folder):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def naming_errors(path: str | os.PathLike) -> Iterator[None]:
    """Errors of the system that name no file, as those of `write` and `fsync`, name this one."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


class _NamedFile(io.FileIO):
    """A new file, whose errors of writing name the file that it will be."""

    def __init__(self, path: Path, *, final: Path):
        super().__init__(os.fspath(path), "x+")
        self._final = final

    def write(self, data) -> int:
        with naming_errors(self._final):
            return super().write(data)


def _prefix(path: Path) -> str:
    """What the names of temporary files beside `path` start with."""
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
        with contextlib.suppress(OSError), open(other, "rb") as file:  # locked, or gone already
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            other.unlink()


def _is_ours(middle: str) -> bool:
    """Whether the part of a name between the target's name and .tmp is one of this module's."""
    process, _, random = middle.partition("-")
    return process.isdecimal() and len(random) == 8 and set(random) <= set("0123456789abcdef")
