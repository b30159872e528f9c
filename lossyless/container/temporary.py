"""Files that have a temporary name until they are complete."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_ATTEMPTS = 100


def create_temporary(path: Path) -> tuple[Path, BinaryIO]:
    """A new file `<name>.<process>-<random>.tmp` beside `path`, locked while it is open.

    Removes what earlier writers of the same `path` left behind when they were killed: their files
    are not locked any more. (Where a file system has no locks, nothing is removed.)

    Raises OSError if `path` cannot be a file: its folder is missing, or it is a folder itself.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder, not a file to write", str(path))
    _remove_abandoned(path)
    for _ in range(_ATTEMPTS):
        temporary = path.with_name(f"{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
        file = open(temporary, "xb")  # noqa: SIM115, the caller closes it
        with contextlib.suppress(OSError):  # no locks here: then nobody can take it for abandoned
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file.fileno()).st_nlink:
            return temporary, file
        file.close()  # another writer of `path` removed it in the instant before it was locked
    raise FileExistsError(f"{path}: other writers keep removing temporary files beside it")


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file to write to, which takes the name `path` when the block ends without an error.

    Otherwise it is removed, and whatever had the name before is left untouched.
    """
    path = Path(path)
    temporary, file = create_temporary(path)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_abandoned(path: Path) -> None:
    prefix, suffix = path.name + ".", ".tmp"
    for other in path.parent.iterdir():
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
