"""Where results come from: the commit of the code, and the device."""

import functools
import platform
import re
import subprocess
from pathlib import Path

import torch

from lossyless.parallel import available_cores

ROOT = Path(__file__).parents[2]


@functools.cache
def code_version() -> str | None:
    """Git commit of this code; None outside a repository or without git.

    It ends with "-dirty" if tracked files outside results/ have uncommitted changes.
    """
    try:
        commit = _git("describe", "--always", "--abbrev=12")
        changes = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results")
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}-dirty" if changes else commit


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


def device_name() -> str:
    """The CPU, with the number of available cores, and the GPU if there is one."""
    name = f"{available_cores()} cores of {cpu_name()}"
    return f"{name}, {torch.cuda.get_device_name()}" if torch.cuda.is_available() else name


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.exists() else ""
    found = re.search("model name.*: (.*)", text)
    return found.group(1) if found else platform.processor()
