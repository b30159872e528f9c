"""Files written with one number of threads and processes, read with others: equal to the bit."""

import itertools
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from lossyless.files import FeatureFile, write_features
from utils.fault_drill.corruption import CHUNK, draw, make_codecs, same
from utils.fault_drill.trials import Row, Trial, attempt_all, judge, summarise

WAYS = [*itertools.product((1, 2, 4), (1, 2))]  # threads of torch, processes of the coder


def run(seed: int) -> Iterator[Row]:
    """Each codec; writer and reader are different processes. Devices: the GPU, if there is one."""
    devices = ["cpu", *["cuda"] * torch.cuda.is_available()]
    for name, codec in make_codecs(seed).items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "z.bin")
            z = draw(codec, seed)
            write_features([z], path, codec, n_workers=1, chunk_size=CHUNK)
            with FeatureFile(path, codec) as file:
                expected = path.read_bytes(), file.read(n_workers=1)

            def write(device: str, way: tuple[int, int], z=z, codec=codec, path=path) -> Trial:
                torch.set_num_threads(way[0])
                write_features([z.to(device)], path, codec, n_workers=way[1], chunk_size=CHUNK)
                return Trial("survived")

            def read(way: tuple[int, int], codec=codec, path=path, expected=expected) -> Trial:
                torch.set_num_threads(way[0])
                with FeatureFile(path, codec) as file:
                    found = path.read_bytes(), file.read(n_workers=way[1])
                return judge(lambda: same(found, expected), (), "")

            trials = []
            for device, way in itertools.product(devices, WAYS):
                trials += attempt_all(partial(write, device), [way])
                trials += attempt_all(read, WAYS)
            yield summarise(f"other threads, {'+'.join(devices)}", name, trials, seed)
