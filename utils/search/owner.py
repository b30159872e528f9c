"""Who works on a trial, and whether they still live."""

import os
import platform
import uuid
from pathlib import Path

from filelock import FileLock, Timeout


class Owner:
    """Who works on trials: a name, and a lock that is held for as long as the process lives."""

    def __init__(self, folder: Path):
        self.id = f"{platform.node()}_{os.getpid()}_{uuid.uuid4().hex[:8]}"
        self._folder = folder
        self._lock = FileLock(self._file(self.id))

    def acquire(self) -> None:
        self._lock.acquire()

    def release(self) -> None:
        self._file(self.id).unlink(missing_ok=True)
        self._lock.release()

    def is_other(self, owner: str | None) -> bool:
        """Whether this is another search that is under way."""
        return owner != self.id and self.is_alive(owner)

    def is_alive(self, owner: str | None) -> bool:
        if owner is None or owner == self.id:
            return owner is not None
        file = self._file(owner)
        if not file.is_file():
            return False
        try:
            with FileLock(file, timeout=0):
                file.unlink(missing_ok=True)
                return False
        except Timeout:
            return True

    def _file(self, owner: str) -> Path:
        return self._folder / f"optuna_{owner}.lock"
