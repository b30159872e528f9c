"""Wall-clock time of computations on a device."""

import time

import torch


class Stopwatch:
    """Total time in seconds spent inside its `with` blocks.

    GPUs compute asynchronously, so the device is synchronised at the start and end of each block.
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

    def __exit__(self, *_: object) -> None:
        self._synchronise()
        self.seconds += time.perf_counter() - self._start
