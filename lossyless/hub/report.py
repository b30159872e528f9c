"""The line that closes a compression or decompression."""

import os
import time
from dataclasses import dataclass
from pathlib import Path


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
    """

    file: str
    n_examples: int
    n_bytes: int
    seconds: float
    unit: str
    n_source_bytes: int | None

    @classmethod
    def of(
        cls,
        file: str | os.PathLike,
        n_examples: int,
        start: float,
        *,
        unit: str = "image",
        n_source_bytes: int | None = None,
    ) -> "Report":
        """About a file that is there, and what began at `start` of `time.monotonic`."""
        n_bytes, seconds = Path(file).stat().st_size, time.monotonic() - start
        return cls(os.fspath(file), n_examples, n_bytes, seconds, unit, n_source_bytes)

    def shown(self, is_info: bool) -> "Report":
        """This report, printed if wanted."""
        if is_info:
            print(self)
        return self

    @property
    def bits_per_example(self) -> float:
        """Coded bits of the whole file per example."""
        return 8 * self.n_bytes / max(self.n_examples, 1)

    @property
    def examples_per_second(self) -> float:
        return self.n_examples / max(self.seconds, 1e-9)

    def __str__(self) -> str:
        line = (
            f"{self.file}: {self.n_examples} {self.unit}s, {self.bits_per_example:.1f} bits per "
            f"{self.unit}, {self.examples_per_second:.1f} {self.unit}s/s"
        )
        if self.n_source_bytes is None:
            return line
        ratio = self.n_source_bytes / max(self.n_bytes, 1)
        sizes = f"{self.n_bytes:,} bytes for {self.n_source_bytes:,} of image files"
        return f"{line}, {sizes} ({ratio:.0f}x)"
