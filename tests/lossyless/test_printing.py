"""A program's exit status does not depend on the reader of its output."""

import os
import pty
import subprocess
import sys

import pytest
from helpers.tiny import ROOT

PROGRAM = """
import sys
from lossyless.printing import forgive_output

forgive_output()
sys.stdin.readline()
for stream in (sys.stdout, sys.stderr):
    print("caf\\xe9 \\u03b2 \\udce9", file=stream)  # from a file name that is not valid text
    print("x" * 200_000, file=stream)  # more than a pipe holds
sys.exit(3)
"""


def run(**options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.run(command, cwd=ROOT, **{"input": b"\n"} | options)


@pytest.mark.parametrize("streams", [{"stdout"}, {"stderr"}, {"stdout", "stderr"}])
def test_a_closed_pipe_is_not_an_error(streams):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        streams = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE) | dict.fromkeys(
            streams, closed
        )
        done = run(**streams)
    assert done.returncode == 3
    assert b"Error" not in (done.stderr or b"") + (done.stdout or b"")


FILE = """
import os
with open(sys.argv[1], "wb") as file:
    assert file.fileno() > 2
    os.write(1, b"C")
    os.write(2, b"libraries")
    file.write(b"data")
"""


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_from_the_start_discard_text(tmp_path, closed):
    """In particular, no file gets their descriptors, and stdout does not get errors."""
    program = PROGRAM.replace("sys.exit", FILE + "sys.exit").replace("sys.stdin.readline()", "")
    words = ["sh", "-c", f'"$@" {closed}', "sh", sys.executable, "-c", program, tmp_path / "file"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True)
    assert done.returncode == 3 and (tmp_path / "file").read_bytes() == b"data"
    expected = {">&-": (0, 1), "2>&-": (1, 0)}.get(closed, (0, 0))
    assert (done.stdout.count(b"caf"), done.stderr.count(b"caf")) == expected


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("program", ["lossyless.hub", "utils.status"])
def test_a_full_disk_is_an_error_in_one_line(program):
    """Python by itself prints tracebacks and exits with 120."""
    command = [sys.executable, "-m", program, "--help"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "standard output" in line and "No space left" in line


def test_a_lost_terminal_is_not_an_error():
    terminal, output = pty.openpty()
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=output, stderr=output
    ) as process:
        os.close(output)
        os.close(terminal)
        process.communicate(b"\n")
    assert process.returncode == 3


@pytest.mark.parametrize(
    "env, expected",
    [
        ({"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}, rb"caf\xe9 \u03b2 \udce9"),
        ({"PYTHONIOENCODING": "latin-1"}, b"caf\xe9 \\u03b2 \\udce9"),
        ({"PYTHONUTF8": "1"}, "café β \\udce9".encode()),
    ],
    ids=["ASCII", "Latin-1", "UTF-8"],
)
def test_an_encoding_is_not_an_error(env, expected):
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONIOENCODING"}
    done = run(capture_output=True, env=inherited | env)
    assert done.returncode == 3
    assert done.stdout.splitlines()[0] == done.stderr.splitlines()[0] == expected
