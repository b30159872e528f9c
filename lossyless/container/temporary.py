"""Files that have a temporary name until they are complete."""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import BinaryIO

_ATTEMPTS = 100


def create_temporary(path: Path) -> tuple[Path, BinaryIO]:
    """A new file `<name>.<process>-<random>.tmp` beside `path`, locked while it is open.

    Removes what earlier writers of the same `path` left behind when they were killed: their files
    are not locked any more. (Where a file system has no locks, nothing is removed.)
    """
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
