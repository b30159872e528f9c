"""Which searches are alive, told by file locks, which the operating system releases on a kill."""

import os
import platform
import uuid
from pathlib import Path

from filelock import FileLock, Timeout


class Owner:
    """A search process: an id, written into its trials, and a lock held while it is alive.

    Optuna's own heartbeat would serve only inside `Study.optimize`, which runs trials in threads.
    """

    def __init__(self, folder: Path):
        self.id = f"{platform.node()}_{os.getpid()}_{uuid.uuid4().hex[:8]}"
        self._folder = folder
        self._lock = FileLock(self._file(self.id))

    def acquire(self) -> None:
        self._lock.acquire()

    def release(self) -> None:
        self._file(self.id).unlink(missing_ok=True)
        self._lock.release()

    def is_alive(self, owner: str | None) -> bool:
        """Whether the search with this id is running; None, of a trial without one, is not."""
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
