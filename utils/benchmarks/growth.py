"""Growth of time with size: slopes of log time against log size, 1 if growth is linear."""

import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lossyless.files import FeatureFile, write_features
from lossyless.torch_state import one_thread
from utils.benchmarks.bottleneck import make_bottleneck
from utils.benchmarks.comparison import Comparison
from utils.data.banana import BananaDataModule

MAX_SLOPE = 1.1


@one_thread()
def compare(is_quick: bool) -> list[Comparison]:
    """Measure slopes of the CPU time of the entropy coder, files and the data pipeline."""
    sizes = (256, 1_024) if is_quick else (2_048, 8_192, 32_768)
    n_repeats = 1 if is_quick else 5
    bottleneck = make_bottleneck(64)
    rate, z = bottleneck.rate, bottleneck.draw(max(sizes))
    payloads = {n: rate.compress(z[:n]) for n in sizes}
    with tempfile.TemporaryDirectory() as folder:
        paths = {n: Path(folder, str(n)) for n in sizes}

        def write(n: int) -> None:
            write_features([z[:n]], paths[n], rate, n_workers=1)

        def read(n: int) -> None:
            with FeatureFile(paths[n], rate) as file:
                file.read(n_workers=1)

        steps: dict[str, Callable[[int], object]] = {
            "encoding": lambda n: rate.compress(z[:n]),
            "decoding": lambda n: rate.decompress(payloads[n], n),
            "writing a file": write,
            "reading a file": read,
            "an epoch of the Banana": lambda n: deque(
                BananaDataModule(n_train=8 * n, batch_size=1024, seed=0).loader("train"), maxlen=0
            ),
        }
        return [
            Comparison(
                f"growth of {what}",
                "linear",
                "",
                [_slope(step, sizes) for _ in range(n_repeats)],
                [1.0] * n_repeats,
                high=MAX_SLOPE,
                n=f"{min(sizes):,} to {max(sizes):,}",
            )
            for what, step in steps.items()
        ]


def _slope(step: Callable[[int], object], sizes: tuple[int, ...]) -> float:
    """Slope of the line fitted to log CPU time against log size, after a warm-up."""
    step(min(sizes))
    seconds = []
    for n in sizes:
        start = time.process_time()
        step(n)
        seconds.append(time.process_time() - start)
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
