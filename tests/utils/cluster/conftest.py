"""Fake Slurm commands."""

import os
from collections.abc import Callable

import pytest


@pytest.fixture
def fake(tmp_path, monkeypatch) -> Callable[..., None]:
    """Write a fake command with this name and these lines; by default, it prints nothing."""
    folder = tmp_path / "commands"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def write(name: str, *lines: str) -> None:
        (folder / name).write_text("\n".join(["#!/bin/sh", *lines, ""]))
        (folder / name).chmod(0o755)

    for name in ("sbatch", "srun", "squeue"):
        write(name, "exit 0")
    return write
