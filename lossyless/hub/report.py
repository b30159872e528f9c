"""What is shown of a compression or decompression: a bar meanwhile, and a line that closes it."""

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

Work = Literal["Encoding", "Decoding", "Merging"]


@dataclass(frozen=True)
class Report:
    """What was coded, how small and how fast.

    Printed as the official code does it: "Rate: 1506.50 bits/img | Encoding: 347.82 img/sec", or
    "Decoding: 1062.38 img/sec"; then what is compressed beside the bytes of the image files.

    Attributes
    ----------
    n_examples : images, or features of images
    n_bytes : of the compressed file
    seconds : wall-clock time, with everything
    work : what was done
    n_source_bytes : of the image files, where there are any
    is_partial : whether a part of the file is damaged, so that it may hold more examples than these
    """

    n_examples: int
    n_bytes: int
    seconds: float
    work: Work
    n_source_bytes: int | None
    is_partial: bool

    @classmethod
    def of(
        cls,
        file: str | os.PathLike,
        n_examples: int,
        start: float,
        work: Work,
        *,
        n_source_bytes: int | None = None,
        is_partial: bool = False,
    ) -> "Report":
        """About a file that is there, and work that began at `start` of `time.monotonic`."""
        n_bytes, seconds = Path(file).stat().st_size, time.monotonic() - start
        return cls(n_examples, n_bytes, seconds, work, n_source_bytes, is_partial)

    def shown(self, is_info: bool) -> "Report":
        """This report, printed if wanted."""
        if is_info:
            print(self)
        return self

    @property
    def bits_per_example(self) -> float:
        """Coded bits of the whole file per example; NaN if these are not all, or none."""
        if self.is_partial or not self.n_examples:
            return math.nan
        return 8 * self.n_bytes / self.n_examples

    @property
    def examples_per_second(self) -> float:
        return self.n_examples / max(self.seconds, 1e-9)

    def __str__(self) -> str:
        if not self.n_examples:
            return f"{self.work}: 0 img"
        if self.work == "Merging":  # copies bytes: its speed says nothing about the compressor
            parts = [f"Merging: {self.n_examples} img"]
        else:
            parts = [f"{self.work}: {self.examples_per_second:.2f} img/sec"]
        if self.work != "Decoding":
            parts.insert(0, f"Rate: {self.bits_per_example:.2f} bits/img")
        if self.n_source_bytes is not None:
            ratio = self.n_source_bytes / self.n_bytes
            sizes = f"{self.n_bytes:,} bytes for {self.n_source_bytes:,} of image files"
            parts.append(f"{self.n_examples} img: {sizes} ({ratio:.0f}x)")
        return " | ".join(parts)


@contextmanager
def progress(n: int, is_info: bool) -> Iterator[tqdm]:
    """A bar that counts to n; silent where there is no terminal."""
    with tqdm(total=n, unit="img", disable=None if is_info else True, leave=False) as bar:
        yield bar
