"""How far a loop has come: a bar in a terminal, lines of text in a log."""

import sys
import time
from collections.abc import Collection, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
SECONDS = 30.0  # between two lines


def progress(items: Collection[T], label: str, seconds: float = SECONDS) -> Iterator[T]:
    """The items, whose progress is shown on stderr meanwhile.

    Parameters
    ----------
    items : an iterable with a length.
    label : what is done with them.
    seconds : between two lines, where there is no terminal.
    """
    if sys.stderr.isatty():
        yield from tqdm(items, label)
        return
    start = last = time.monotonic()
    for n_done, item in enumerate(items):
        now = time.monotonic()
        if n_done and now - last >= seconds:
            _print(label, n_done / len(items), now - start)
            last = now
        yield item


def _print(label: str, done: float, elapsed: float) -> None:
    left = elapsed * (1 - done) / done
    bar = "#" * round(20 * done)
    print(
        f"{label:<30} [{bar:<20}] {done:4.0%} {elapsed:4.0f} s, {left:.0f} s left",
        file=sys.stderr,
        flush=True,
    )
