"""Printing that fails neither for an encoding nor for a reader that has stopped reading."""

import io
import sys


def forgive_output() -> None:
    """Let the exit status of this program speak of its work, not of who reads what it prints.

    In standard output and error, characters that the encoding lacks are escaped ("\\xb1"), and what
    is printed after the reader closed the pipe (`| head -1`) is discarded. For the start of a
    program; streams that are already replaced, as in notebooks and tests, stay as they are.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or stream is not getattr(sys, f"__{name}__"):
            continue
        stream.flush()
        file = io.BufferedWriter(_Output(stream.fileno(), "w", closefd=False))
        settings = {
            setting: getattr(stream, setting)
            for setting in ("encoding", "line_buffering", "write_through")
        }
        setattr(sys, name, io.TextIOWrapper(file, errors="backslashreplace", **settings))


class _Output(io.FileIO):
    """A file that takes and discards what a closed pipe refuses."""

    def write(self, data) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return memoryview(data).nbytes
