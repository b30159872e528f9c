"""Wall-clock time of what a device really did."""

import time
from types import TracebackType

import torch


class Stopwatch:
    """Adds up the seconds spent inside its `with` blocks.

    A GPU works behind the host's back: both ends of a block wait for it, so that the figure is the
    time of the work and not of its launch.
    """

    def __init__(self, device: torch.device | str):
        self.device = torch.device(device)
        self.seconds = 0.0

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def __enter__(self) -> "Stopwatch":
        self._synchronise()
        self._start = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._synchronise()
        self.seconds += time.perf_counter() - self._start
