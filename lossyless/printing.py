"""Printing that does not fail if the encoding lacks a character or the pipe is closed."""

import atexit
import errno
import io
import os
import sys


def forgive_output() -> None:
    """Keep a program from failing because of encodings or closed pipes. Call this at the start.

    On standard output and error, characters that the encoding lacks are escaped ("\\xb1"), and
    text is discarded once its reader has closed the pipe (`| head -1`) or the terminal is gone.
    Streams that are closed from the start, as by `2>&-`, discard all text. Streams that have
    already been replaced, as in notebooks and tests, are left unchanged.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # otherwise, the next file would reuse its descriptor
            nothing = open(os.devnull, mode, errors="backslashreplace")  # noqa: SIM115, PLW1514
            setattr(sys, name, nothing)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__"):
            continue
        stream.flush()
        settings = {
            setting: getattr(stream, setting)
            for setting in ("encoding", "line_buffering", "write_through")
        }
        setattr(sys, name, forgiving(stream.fileno(), closefd=False, **settings))
        if name == "stdout":
            atexit.register(_flush_at_exit)


def print_error(text: str) -> None:
    """Print to stderr, if there is one: graphical programs and services may have none."""
    if sys.stderr is not None:  # `print` would use stdout instead
        print(text, file=sys.stderr, flush=True)


def _flush_at_exit() -> None:
    """Flush the output; if that fails, as on a full disk, print one line and exit with status 1."""
    try:
        sys.stdout.flush()
    except OSError as error:
        print_error(f"error: standard output: {error}")
        os._exit(1)


def forgiving(descriptor: int, *, closefd: bool = True, **settings: object) -> io.TextIOWrapper:
    """A text stream that escapes and discards text as `forgive_output` describes.

    `closefd`: whether closing the stream closes the descriptor; `settings`: see `io.TextIOWrapper`.
    """
    file = io.BufferedWriter(_Output(descriptor, "w", closefd=closefd))
    return io.TextIOWrapper(file, errors="backslashreplace", **settings)


class _Output(io.FileIO):
    """A file that discards output to a closed pipe (EPIPE) or a lost terminal (EIO)."""

    def write(self, data) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            return memoryview(data).nbytes
