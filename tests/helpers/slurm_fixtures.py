"""Fixtures for tests on a real single-node Slurm.

A pytest plugin: `pytest_plugins = ["helpers.slurm_fixtures"]`.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.slurm_cluster import START, STOP, cancel_jobs, copy_project
from helpers.tiny import call

OUR_CONFIG = "slurm/start_single_node.sh"


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """A running Slurm; if the tests had to start it, they also stop it."""
    if reason := _reason_against_slurm():
        pytest.skip(reason)
    if shutil.which("scontrol") and call("scontrol", "ping").returncode == 0:
        yield
        return
    _call_script(START)
    yield
    _call_script(STOP)


def _call_script(script: str) -> None:
    done = call(script)
    assert done.returncode == 0, done.stdout + done.stderr


def _reason_against_slurm() -> str:
    """Why Slurm cannot be started here; empty if it can."""
    config = Path("/etc/slurm/slurm.conf")
    if os.geteuid() != 0:
        return "only root can start Slurm"
    if shutil.which("apt-get") is None:
        return "Slurm is installed with apt-get, which is not available here"
    if config.is_file() and OUR_CONFIG not in config.read_text():
        return f"{config} belongs to another Slurm, which is left alone"
    return ""


@pytest.fixture
def project(cluster, tmp_path) -> Iterator[Path]:
    """A copy of the project with its own results; its jobs end with the test."""
    root = copy_project(tmp_path / "project")
    yield root
    cancel_jobs(root)
