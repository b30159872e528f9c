"""Folders that appear read-only, even to root."""

import tempfile
from pathlib import Path

import pytest


def refuse_to_write(
    monkeypatch: pytest.MonkeyPatch, folder: Path, reason: str = "Read-only file system"
) -> None:
    """Make a folder appear read-only to the project."""
    original = tempfile.TemporaryFile

    def temporary_file(*args: object, dir: Path, **kwargs: object) -> object:
        if Path(dir).is_relative_to(folder):
            raise OSError(30, reason, str(dir))
        return original(*args, dir=dir, **kwargs)

    monkeypatch.setattr(tempfile, "TemporaryFile", temporary_file)
