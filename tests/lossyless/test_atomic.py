"""Files that take their name when they are complete, and whose errors name them."""

import contextlib
import errno
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
    """What a full disk does to writes: the system refuses them after so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_replaced_file_is_complete_or_as_it_was(path):
    path.with_name("data.lsl.1-0123abcd.tmp").write_bytes(b"of a killed process")
    with replacing(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new" and list(path.parent.iterdir()) == [path]
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.write(b"newer")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"new" and list(path.parent.iterdir()) == [path]
    with pytest.raises(FileNotFoundError), replacing(path.parent / "no folder" / "file"):
        pass


def test_links_are_kept_and_their_targets_replaced(tmp_path, path):
    (tmp_path / "folder").mkdir()
    target = tmp_path / "folder" / "target"
    (tmp_path / "folder" / "second").symlink_to("target")
    path.symlink_to("folder/second")
    for content in (b"created", b"replaced"):  # a link may point to a file that is still missing
        with replacing(path) as file:
            file.write(content)
            assert len(list(tmp_path.iterdir())) == 2  # the temporary file lies beside its target
        assert path.is_symlink() and target.read_bytes() == content
    with pytest.raises(KeyboardInterrupt), replacing(path):
        raise KeyboardInterrupt
    assert sorted(os.listdir(tmp_path / "folder")) == ["second", "target"]
    assert target.read_bytes() == content


@pytest.mark.parametrize("is_linked", [False, True])
@pytest.mark.parametrize("kind", ["fifo", "folder", "loop", "/dev/null", "missing folder"])
def test_what_is_no_ordinary_file_is_refused_and_untouched(tmp_path, kind, is_linked):
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
        pytest.fail("nothing may be computed for a file that cannot be")
    assert caught.value.filename in (str(path), str(tmp_path / "out"))
    assert {p.name: p.lstat() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("stdout", ["pipe", "file"])
def test_standard_output_is_refused(tmp_path, stdout):
    """A replaced file would lose what the process prints."""
    code = "from lossyless.atomic import replacing\nwith replacing('/dev/stdout'): print('no')"
    with open(tmp_path / "out", "w+") as file:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE if stdout == "pipe" else file,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert (done.stdout or "") + file.read() == ""
    assert "OSError" in done.stderr and "'/dev/stdout'" in done.stderr


WRITES = {
    "write": lambda file: file.write(bytes(1 << 20)),
    "writes": lambda file: [file.write(bytes(100)) for _ in range(1000)],
    "numpy": lambda file: np.save(file, np.zeros(1 << 17)),
    "at the end": lambda file: file.write(bytes(5000)),  # held back until it is closed
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_full_disk_names_the_file_that_did_not_fit(tmp_path, path, write):
    """And not another one that is written at the same time."""
    with contextlib.ExitStack() as stack:
        caught = stack.enter_context(pytest.raises(OSError))
        stack.enter_context(files_of_at_most(4096))
        file = stack.enter_context(replacing(path))
        stack.enter_context(replacing(tmp_path / "another"))
        write(file)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert not path.exists() and not list(tmp_path.glob("*.tmp"))


def test_only_errors_without_a_name_get_one(path):
    named = OSError(errno.EIO, "input/output error", "other")
    for error in (named, OSError("no number"), ValueError("not of the system")):
        with pytest.raises(type(error)) as caught, naming_errors(path):
            raise error
        assert caught.value is error


@pytest.mark.parametrize("name", ["n" * 255, "\u00e9" * 127, "n" * 230 + ".lsl"])
def test_a_name_may_be_as_long_as_the_file_system_takes(tmp_path, name):
    path = tmp_path / name
    with replacing(path) as file:
        [temporary] = tmp_path.iterdir()
        file.write(b"new")
    assert path.read_bytes() == b"new"
    temporary.write_bytes(b"of a killed process")
    with replacing(path) as file:
        file.write(b"newer")
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == b"newer"


def test_a_longer_name_is_refused_at_once(tmp_path):
    path = tmp_path / ("n" * 256)
    with pytest.raises(OSError) as caught, replacing(path):
        pytest.fail("nothing may be computed for a file that cannot be")
    assert (caught.value.errno, caught.value.filename) == (errno.ENAMETOOLONG, os.fspath(path))
