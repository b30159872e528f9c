"""Full disks, folders without permission, no network, two processes at once, clocks that jump."""

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import torch

from lossyless import ArrayCompressor
from lossyless.files import merge_files
from lossyless.hub.features import FeatureCompressor
from lossyless.rates import HFactorized
from utils.fault_drill.kills import outputs, settings
from utils.fault_drill.trials import (
    FORK,
    SURVIVED,
    TIMEOUT,
    UNDETECTED,
    UNEXPLAINED,
    Row,
    Trial,
    attempt_all,
    command,
    judge,
    judge_command,
    main_program,
    summarise,
)
from utils.runs import status_file
from utils.runs.run import write_checkpoint

LIMITS = (1_000, 10_000, 20_000, 30_000, 50_000)  # bytes of the largest file that can be written
NOBODY = 65534
OFFLINE = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https")}  # no server
Z = np.random.default_rng(0).normal(size=(2000, 8)).astype(np.float32)


def fill_disk(n_bytes: int) -> None:
    """Let writes fail beyond a size of a file, like on a full disk; needs no privileges."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, resource.RLIM_INFINITY))


def drop_privileges() -> None:
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def jump() -> None:
    """Let the clock jump by a day, back and forth, whenever a status is written."""
    days = itertools.cycle([timedelta(days=1), timedelta(days=-1), timedelta(0)])

    class Jumping(datetime):
        @classmethod
        def now(cls, tz=UTC):
            return datetime.now(tz) + next(days)

    status_file.datetime = Jumping


def run_main(seed: int) -> Iterator[Row]:
    """Faults of whole jobs; after each, the same command must give the uninterrupted results."""
    faults: dict[str, list[Callable[[], None]]] = {
        "full disk": [partial(fill_disk, limit) for limit in LIMITS],
        "clock jumps": [jump],
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "run")
        line = settings(folder)
        (trial,) = attempt_all(lambda _: main_program(line), ["no fault"])
        if trial.verdict != SURVIVED:
            raise RuntimeError(f"main.py fails without a fault: {trial.note}")
        expected = outputs(folder)

        def is_right() -> bool:
            return outputs(folder) == expected and not [*folder.rglob("*.tmp")]

        def again() -> Trial:
            (found,) = attempt_all(lambda _: main_program(line, is_right), ["the same command"])
            return found

        for fault, prepares in faults.items():
            trials = []
            for prepare in prepares:
                shutil.rmtree(folder)
                trials += attempt_all(
                    lambda _, prepare=prepare: main_program(line, is_right, prepare=prepare),
                    [fault],
                )
                resumed = again()
                trials[-1] = trials[-1] if resumed.verdict == SURVIVED else resumed
            yield summarise(fault, "main.py", trials, seed)
        for file in folder.rglob("*"):  # as after a copy without times
            os.utime(file, (0, 2**32) if file.suffix == ".json" else (2**32, 0))
        yield summarise("other file times", "main.py", [again()], seed)

        shutil.rmtree(folder)
        both = [FORK.Process(target=main_program, args=(line,)) for _ in range(2)]
        for process in both:
            process.start()
        for process in both:
            process.join(TIMEOUT)
            process.kill()
        is_ok = is_right() and [process.exitcode for process in both] == [0, 0]
        trial = Trial(SURVIVED if is_ok else UNDETECTED)
        yield summarise("two processes", "main.py", [trial], seed)

        offline = partial(os.environ.update, OFFLINE)
        sets = ("cifar10", "mnist", "stl10", "food101", "pets37")
        trials = attempt_all(
            lambda data: main_program(
                [*line, f"data@data_feat={data}", "architecture@encoder=cnn"],
                name=str(folder / "data"),
                prepare=offline,
            ),
            sets,
        )
        yield summarise("no network", "main.py", trials, seed)
        file = next(folder.rglob("*.lossyless"))
        env = os.environ | OFFLINE | {"TORCH_HOME": name}
        done = command("-m", "lossyless.hub", "decompress", file, folder / "z.npy", env=env)
        trials = [judge_command(done, lambda: False, "--pretrained")]
        yield summarise("no network", "hub decompress", trials, seed)


def run_writers(seed: int) -> list[Row]:
    """Each function that replaces a file fails in one line, and keeps the existing file."""
    torch.manual_seed(seed)
    rate = HFactorized(Z.shape[1])
    rate.update()
    hub, fitted = FeatureCompressor(rate.eval()), ArrayCompressor().fit(Z)
    state = {"weights": torch.zeros(10_000)}
    with tempfile.TemporaryDirectory() as name:
        parts = [Path(name, "part1"), Path(name, "part2")]
        for part in parts:
            hub.compress_features(Z, part, is_info=False)
        quiet = {"is_info": False, "n_workers": 1}
        writers: dict[str, Callable[[Path], object]] = {
            "compress_features": lambda path: hub.compress_features(Z, path, **quiet),
            "official format": lambda p: hub.compress_features(Z, p, format="official", **quiet),
            "decompress_to_npy": lambda path: hub.decompress_to_npy(parts[0], path, **quiet),
            "merge_files": lambda path: merge_files(parts, path),
            "ArrayCompressor.save": fitted.save,
            "write_checkpoint": lambda path: write_checkpoint(state, path),
        }

        def trial(fault: str, writer: str) -> Trial:
            folder = Path(name, f"{fault} {writer}")
            folder.mkdir(exist_ok=True)
            path = folder / "out"
            path.write_bytes(b"old")
            if fault == "full disk":
                fill_disk(500)
            elif fault == "read-only folder":
                os.chmod(name, 0o755)
                folder.chmod(0o555)
                drop_privileges()
            found = judge(lambda: writers[writer](path) is writer, (OSError,), str(path))
            is_kept = path.read_bytes() == b"old" and len([*folder.iterdir()]) == 1
            return found if is_kept else Trial(UNEXPLAINED, f"not kept: {[*folder.iterdir()]}")

        rows = []
        for fault in ("full disk", "read-only folder"):
            trials = [attempt_all(partial(trial, fault), [writer])[0] for writer in writers]
            rows.append(summarise(fault, "writers of files", trials, seed))
    return rows


def run(seed: int) -> Iterator[Row]:
    yield from run_writers(seed)
    yield from run_main(seed)
