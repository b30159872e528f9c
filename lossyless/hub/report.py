"""What is shown of a compression or decompression: a bar meanwhile, and a line that closes it."""

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm


@dataclass(frozen=True)
class Report:
    """What was coded, how small and how fast.

    Attributes
    ----------
    file : name of the compressed file
    n_examples : images or vectors
    n_bytes : of the compressed file
    seconds : wall-clock time, with everything
    unit : what an example is
    n_source_bytes : of the image files, where there are any
    is_partial : whether a part of the file is damaged, so that it may hold more examples than these
    """

    file: str
    n_examples: int
    n_bytes: int
    seconds: float
    unit: str
    n_source_bytes: int | None
    is_partial: bool

    @classmethod
    def of(
        cls,
        file: str | os.PathLike,
        n_examples: int,
        start: float,
        *,
        unit: str = "example",
        n_source_bytes: int | None = None,
        is_partial: bool = False,
    ) -> "Report":
        """About a file that is there, and what began at `start` of `time.monotonic`."""
        n_bytes, seconds = Path(file).stat().st_size, time.monotonic() - start
        return cls(os.fspath(file), n_examples, n_bytes, seconds, unit, n_source_bytes, is_partial)

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
        parts = [f"{self.n_examples} {self.unit}s"]
        if not math.isnan(self.bits_per_example):
            parts.append(f"{self.bits_per_example:.1f} bits per {self.unit}")
        if self.n_examples:
            parts.append(f"{self.examples_per_second:.1f} {self.unit}s/s")
        if self.n_source_bytes is not None:
            ratio = self.n_source_bytes / max(self.n_bytes, 1)
            sizes = f"{self.n_bytes:,} bytes for {self.n_source_bytes:,} of image files"
            parts.append(f"{sizes} ({ratio:.0f}x)")
        return f"{self.file}: {', '.join(parts)}"


@contextmanager
def progress(n: int, unit: str, is_info: bool) -> Iterator[tqdm]:
    """A bar that counts to n; silent where there is no terminal."""
    with tqdm(total=n, unit=unit, disable=None if is_info else True, leave=False) as bar:
        yield bar
