"""Progress of loops: a bar in a terminal, lines of text in a log."""

import sys
import time
from collections.abc import Collection, Iterator
from datetime import timedelta
from typing import TypeVar

from tqdm import tqdm

from lossyless.printing import print_error

T = TypeVar("T")
SECONDS = 10.0  # interval between lines of text


def progress(items: Collection[T], label: str, seconds: float = SECONDS) -> Iterator[T]:
    """Iterate over items and show the progress on stderr; in a log, every `seconds` seconds."""
    if has_terminal():
        yield from tqdm(items, label)
        return
    start = last = time.monotonic()
    for n_done, item in enumerate(items):
        now = time.monotonic()
        if n_done and now - last >= seconds:
            done = n_done / len(items)
            print_progress(label, done, (now - start) * (1 - done) / done)
            last = now
        yield item


def has_terminal() -> bool:
    """Whether stderr is a terminal; graphical programs and services may have none."""
    return sys.stderr is not None and sys.stderr.isatty()


def print_progress(label: str, done: float, left: float | None, values: str = "") -> None:
    """Print a line such as "featurizer epoch 2/4, 36%, 00:30 left, loss 0.48".

    `done` is the completed fraction, and `left` the remaining seconds, or None if unknown.
    """
    parts = [label, f"{done:.0%}", "" if left is None else f"{clock(left)} left", values]
    print_error(", ".join(filter(None, parts)))


def clock(seconds: float) -> str:
    """Format a time span as "00:40", "1:00:40" or "1 day, 0:00:40"."""
    return str(timedelta(seconds=round(seconds))).removeprefix("0:")
