"""Jobs of a few seconds that are killed or starved, then resumed: results must not change."""

import contextlib
import io
import itertools
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from unittest import mock

import torch

from lossyless.weights import read_checkpoint
from utils.configs.composing import compose_config
from utils.data.module import DataError
from utils.fault_drill.trials import (
    DETECTED,
    FORK,
    HUNG,
    SURVIVED,
    TIMEOUT,
    UNDETECTED,
    UNEXPLAINED,
    Outcome,
    Trials,
    judge,
)
from utils.runs import status_file
from utils.runs.files import read_csv
from utils.runs.identity import STAGES
from utils.runs.run import BEST
from utils.training import jobs, stages

RUN = dict(zip(STAGES, (stages.featurizer, stages.communicate, stages.predict), strict=True))
# The Banana with a few hundred points; each stage takes about a second.
TINY = [
    *("logger=none", "trainer.accelerator=cpu", "experiment=none", "data@data_feat=banana_rot"),
    *("rate=H_hyper", "encoder.z_dim=2", "trainer.max_epochs=8", "communication.n_single=5"),
    *(f"architecture@{net}=mlp_small" for net in ("encoder", "decoder", "predictor")),
    *("architecture@online=linear", "encoder.kwargs.hid_dim=8", "decoder.kwargs.hid_dim=8"),
    *("communication.n_copies=20", "communication.chunk_size=64", "experiment_name=tiny"),
    "checkpoint.every_minutes=0",  # after each epoch
    *(
        f"{data}.kwargs.{size}"
        for data in ("data_feat", "data_pred")
        for size in ("n_train=512", "n_eval=128", "batch_size=64", "eval_batch_size=64")
    ),
]
SIGKILLED = -9
NOBODY = 65534
OFFLINE = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https")}  # unreachable
DOWNLOADED = ("cifar10", "mnist", "stl10", "food101", "pets37")


def settings(folder: Path, *more: str) -> list[str]:
    """Overrides for a tiny experiment that writes to a single folder."""
    places = ("results", "pretrained", "logs", "outputs", "data")
    return [*TINY, *(f"paths.{place}={folder / place}" for place in places), *more]


def run(overrides: list[str], names: tuple[str, ...] = STAGES) -> None:
    """Run some stages in this process, without output."""
    quiet = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with quiet[0], quiet[1], jobs.prepared(compose_config(overrides)) as cfg:
        for name in names:
            RUN[name](cfg)


def run_child(*arguments: object, kill_after: float = TIMEOUT / 2) -> int:
    """Exit code of `run` in a child process that is killed if it outlasts `kill_after` seconds."""
    child = FORK.Process(target=run, args=arguments)
    child.start()
    child.join(kill_after)
    child.kill()
    child.join()
    return child.exitcode


def run_intact(*arguments: object) -> float:
    """Duration of `run` in a child process without a fault; raises RuntimeError if it fails."""
    start = time.monotonic()
    if code := run_child(*arguments):
        raise RuntimeError(f"{arguments}: exit code {code} without a fault")
    return time.monotonic() - start


def outputs(folder: Path) -> dict[str, object]:
    """Results without durations, compressed files, trained weights, names of temporary files."""
    found: dict[str, object] = {}
    for file in folder.rglob("*"):
        name = str(file.relative_to(folder))
        if file.suffix == ".csv":
            rows = read_csv(file)
            found[name] = [{k: v for k, v in row.items() if "_time" not in k} for row in rows]
        elif file.suffix == ".lossyless":
            found[name] = file.read_bytes()
        elif file.name == BEST:
            state = read_checkpoint(file)["state_dict"]
            found[name] = {k: v.numpy().tobytes() for k, v in state.items() if torch.is_tensor(v)}
        elif file.suffix in (".tmp", ".part"):
            found[name] = "temporary"
    return found


def _kill_and_resume(
    stage: str, overrides: list[str], before: Path, after: Path, moment: float
) -> Outcome:
    """Kill and resume a stage that starts from `before`; outputs must equal those in `after`."""
    folder = before.parent / "run"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(before, folder)
    killed = run_child(overrides, (stage,), kill_after=moment)
    if code := run_child(overrides, (stage,)):
        return Outcome(HUNG if code == SIGKILLED else UNEXPLAINED, f"resuming ended with {code}")
    found, expected = outputs(folder), outputs(after)
    if found != expected:
        wrong = [k for k in expected | found if expected.get(k) != found.get(k)]
        return Outcome(UNDETECTED, f"{wrong[:3]} differ")
    return Outcome(SURVIVED, "" if killed else "the stage ended before the kill")


def kills(n_kills: int, seeds: list[int]) -> Iterator[Trials]:
    """Kill each stage `n_kills` times for each seed."""
    for seed in seeds:
        rng = random.Random(seed)
        with tempfile.TemporaryDirectory() as name:
            folder, before = Path(name, "run"), Path(name, "new")
            overrides = settings(folder, f"seed={seed}")
            before.mkdir()
            for stage in STAGES:
                shutil.rmtree(folder, ignore_errors=True)
                shutil.copytree(before, folder)
                duration = run_intact(overrides, (stage,))
                after = shutil.copytree(folder, Path(name, stage))
                moments = [rng.uniform(0, duration) for _ in range(n_kills)]
                kill = partial(_kill_and_resume, stage, overrides, before, after)
                yield Trials("kill -9", f"{stage}, seed={seed}", kill, moments)
                before = after


@contextlib.contextmanager
def full_disk(n_bytes: int) -> Iterator[None]:
    """Make writes beyond `n_bytes` in a file fail, as on a full disk; this needs no privileges."""
    import resource  # not on Windows

    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, unlimited[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)


def jumping_clock(days: int) -> AbstractContextManager:
    """Make the clock jump back and forth whenever a status is written."""
    jumps = itertools.cycle([timedelta(days), timedelta(-days), timedelta(0)])

    class Jumping(datetime):
        @classmethod
        def now(cls, tz=UTC):
            return datetime.now(tz) + next(jumps)

    return mock.patch.object(status_file, "datetime", Jumping)


@contextlib.contextmanager
def second_process(overrides: list[str], _number: int) -> Iterator[None]:
    """Run the same job in another process at the same time."""
    process = FORK.Process(target=run, args=(overrides,))
    process.start()
    try:
        yield
    finally:
        process.join()
    if process.exitcode:
        raise RuntimeError(f"the other process ended with {process.exitcode}")


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    folder.chmod(0o555)
    try:
        yield
    finally:
        folder.chmod(0o755)


def must_raise(overrides: list[str], expected: tuple[type[Exception], ...], name: str) -> Outcome:
    """Run and judge a job that cannot succeed."""

    def is_right() -> bool:
        run(overrides)
        return False

    return judge(is_right, expected, name)


def environment(n_faults: int, seed: int) -> Iterator[Trials]:
    """Trials of full disks, jumping clocks, two processes, no network and read-only folders."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "run")
        line = settings(folder)
        run_intact(line)
        expected = outputs(folder)
        largest = max(file.stat().st_size for file in folder.rglob("*"))

        def survive(fault: Callable[[int], AbstractContextManager], case: int) -> Outcome:
            def run_once() -> bool:
                with fault(case):
                    run(line)
                return outputs(folder) == expected

            shutil.rmtree(folder, ignore_errors=True)
            found = judge(run_once, (OSError,), str(folder))
            if found.verdict == DETECTED:
                run(line)
                if outputs(folder) != expected:
                    return Outcome(UNEXPLAINED, f"wrong results when resumed after {found.note}")
            return found

        def write_read_only(place: str) -> Outcome:
            if os.getuid() == 0:  # root can write anywhere
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            return must_raise([*line, f"paths.{place}={Path(name, 'new')}"], (OSError,), name)

        def download(data: str) -> Outcome:
            overrides = [setting for setting in line if ".kwargs.n_" not in setting]
            overrides += [f"data@data_feat={data}", "architecture@encoder=cnn"]
            with mock.patch.dict(os.environ, OFFLINE):
                return must_raise(overrides, (DataError, OSError), str(folder / "data"))

        sizes = [random.Random(f"{seed} {i}").randrange(100, largest) for i in range(n_faults)]
        both = partial(second_process, line)
        yield Trials("full disk", "job", partial(survive, full_disk), sizes)
        yield Trials("clock jumps", "job", partial(survive, jumping_clock), (1, 365))
        yield Trials("two processes", "job", partial(survive, both), range(-(-n_faults // 5)))
        yield Trials("no network", "job", download, DOWNLOADED)
        with read_only(Path(name)):
            yield Trials("read-only folder", "job", write_read_only, ("results", "pretrained"))
