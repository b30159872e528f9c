"""Atomic files: complete or unchanged; errors name the file."""

import contextlib
import errno
import fcntl
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny import ROOT

from lossyless.atomic import naming_errors, replacing


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data.lsl"


@contextlib.contextmanager
def files_of_at_most(n_bytes: int):
    """Make writes fail after this many bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_replaced_file_is_complete_or_unchanged(path):
    path.with_name("data.lsl.1-0123abcd.tmp").write_bytes(b"of a killed process")
    with replacing(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new" and list(path.parent.iterdir()) == [path]
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.write(b"newer")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"new" and list(path.parent.iterdir()) == [path]


def test_a_file_is_locked_until_it_has_its_name(path, monkeypatch):
    """Otherwise, another writer to the same path would remove it."""
    replace = os.replace

    def check_and_replace(temporary, target):
        with open(temporary, "rb") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        replace(temporary, target)

    monkeypatch.setattr(os, "replace", check_and_replace)
    with replacing(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"


def test_links_are_kept_and_their_targets_replaced(tmp_path, path):
    (tmp_path / "folder").mkdir()
    target = tmp_path / "folder" / "target"
    (tmp_path / "folder" / "second").symlink_to("target")
    path.symlink_to("folder/second")
    for content in (b"created", b"replaced"):  # the target of a link may not exist yet
        with replacing(path) as file:
            file.write(content)
            assert len(list(tmp_path.iterdir())) == 2  # the temporary file is beside the target
        assert path.is_symlink() and target.read_bytes() == content
    with pytest.raises(KeyboardInterrupt), replacing(path):
        raise KeyboardInterrupt
    assert sorted(os.listdir(tmp_path / "folder")) == ["second", "target"]
    assert target.read_bytes() == content


@pytest.mark.parametrize("is_linked", [False, True])
@pytest.mark.parametrize("kind", ["fifo", "folder", "loop", "/dev/null", "missing folder"])
def test_paths_that_are_not_regular_files_are_unchanged(tmp_path, kind, is_linked):
    path = tmp_path / "out"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "missing folder":
        path = path / "file"
    else:
        path = Path(kind)
    if is_linked:
        (tmp_path / "link").symlink_to(path)
        path = tmp_path / "link"
    before = {p.name: p.lstat() for p in tmp_path.iterdir()}
    with pytest.raises(OSError) as caught, replacing(path):
        pytest.fail("the error must come before the work")
    assert caught.value.filename in (str(path), str(tmp_path / "out"))
    assert {p.name: p.lstat() for p in tmp_path.iterdir()} == before


WRITES = {
    "write": lambda file: file.write(bytes(1 << 20)),
    "writes": lambda file: [file.write(bytes(100)) for _ in range(1000)],
    "numpy": lambda file: np.save(file, np.zeros(1 << 17)),
    "at the end": lambda file: file.write(bytes(5000)),  # buffered until the file is closed
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_errors_of_a_full_disk_name_the_file(tmp_path, path, write):
    """They do not name another file that is open at the same time."""
    with contextlib.ExitStack() as stack:
        caught = stack.enter_context(pytest.raises(OSError))
        stack.enter_context(files_of_at_most(4096))
        file = stack.enter_context(replacing(path))
        stack.enter_context(replacing(tmp_path / "another"))
        write(file)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert not path.exists() and not list(tmp_path.glob("*.tmp"))


def test_errors_of_creating_a_file_name_it(tmp_path):
    path = tmp_path / ("x" * 250)  # the name of the temporary file is too long
    with pytest.raises(OSError) as caught, replacing(path):
        pass
    assert caught.value.filename == str(path)


def test_only_system_errors_without_a_name_get_one(path):
    named = OSError(errno.EIO, "input/output error", "other")
    for error in (named, OSError("no number"), ValueError("not of the system")):
        with pytest.raises(type(error)) as caught, naming_errors(path):
            raise error
        assert caught.value is error


WITHOUT_POSIX = """
import os, signal, sys
import torch, lossyless._compressai  # its dependencies import `resource` on Linux
sys.modules["fcntl"] = sys.modules["resource"] = None  # importing them raises ModuleNotFoundError
for name in ("pread", "fork", "getuid", "sched_getaffinity"):
    delattr(os, name)
del signal.pthread_sigmask
import lossyless, lossyless.hub.__main__, lossyless.hub.weights, lossyless.weights
from helpers.stored_features import draw_features, make_codec, quantised, read, write

lossyless.parallel.can_fork = lambda: False
out, codec, z = sys.argv[1], make_codec(), draw_features(300)
abandoned = out + ".1-0123abcd.tmp"
open(abandoned, "wb").close()
write(out, codec, z, n_workers=None)
assert torch.equal(read(out, codec), quantised(codec, z))
assert os.path.exists(abandoned)  # its writer may be alive: without locks, nothing is removed
assert lossyless.weights.writable(lossyless.weights.Path(out)).is_dir()
with lossyless.parallel.without_interrupts():
    assert lossyless.parallel.available_cores() >= 1
"""


def test_windows_needs_no_locks(tmp_path, path):
    env = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", WITHOUT_POSIX, path]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
