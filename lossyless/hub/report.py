"""What is printed of a compression: a progress bar, a line of results, a warning of damage."""

import math
import os
import time
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

Work = Literal["Encoding", "Decoding"]


@dataclass(frozen=True)
class Report:
    """Size and speed of a compression or decompression.

    Printed as by the official code: "Rate: 1506.50 bits/img | Encoding: 347.82 img/sec", or
    "Decoding: 1062.38 img/sec"; then the compressed bytes against those of the image files.

    Attributes
    ----------
    work : "Encoding" or "Decoding"
    n_examples : images, or features of images
    n_bytes : of the compressed file
    seconds : wall-clock time, including reading images and writing files
    n_label_bytes : how many of `n_bytes` hold labels; they do not count as rate
    n_source_bytes : of the image files, if there are any
    is_partial : whether the file is damaged, so that examples may be missing
    """

    work: Work
    n_examples: int
    n_bytes: int
    seconds: float
    n_label_bytes: int = 0
    n_source_bytes: int | None = None
    is_partial: bool = False

    @property
    def bits_per_example(self) -> float:
        """Bits of the file per example, without labels; NaN if examples are missing, or none."""
        if self.is_partial or not self.n_examples:
            return math.nan
        return 8 * (self.n_bytes - self.n_label_bytes) / self.n_examples

    @property
    def examples_per_second(self) -> float:
        return self.n_examples / max(self.seconds, 1e-9)

    def __str__(self) -> str:
        if not self.n_examples:
            return f"{self.work}: 0 img"
        parts = [f"{self.work}: {self.examples_per_second:.2f} img/sec"]
        if self.work == "Encoding":
            parts.insert(0, f"Rate: {self.bits_per_example:.2f} bits/img")
        if self.n_source_bytes is not None:
            ratio = self.n_source_bytes / self.n_bytes
            sizes = f"{self.n_bytes:,} bytes for {self.n_source_bytes:,} of image files"
            parts.append(f"{self.n_examples} img: {sizes} ({ratio:.0f}x)")
        return " | ".join(parts)


def make_report(
    work: Work, file: str | os.PathLike, n_examples: int, start: float, is_info: bool, **details
) -> Report:
    """Report on a file and on work that began at `start` of `time.monotonic`; printed if wanted."""
    n_bytes, seconds = os.path.getsize(file), time.monotonic() - start
    report = Report(work, n_examples, n_bytes, seconds, **details)
    if is_info:
        print(report)
    return report


def progress(n: int, is_info: bool) -> tqdm:
    """A bar that counts to n; silent without a terminal."""
    return tqdm(total=n, unit="img", disable=None if is_info else True, leave=False)


def warn_of_damage(features: Any) -> None:
    """Warn the caller's caller if a `FeatureFile` is damaged, and list the missing examples."""
    if features.damaged:
        details = [text.removeprefix(f"{features.name}: ") for text in features.damaged]
        n_missing = len(features.missing)
        warnings.warn(
            f"{features.name}: is damaged, {n_missing} known examples are lost and left out"
            f"{': ' * bool(n_missing)}{format_spans(features.missing)} ({'; '.join(details[-3:])})",
            stacklevel=3,
        )


def format_spans(indices: NDArray[np.int64]) -> str:
    """Sorted indices as "3, 8-11, 20"."""
    parts = np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1)
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts if len(p))
