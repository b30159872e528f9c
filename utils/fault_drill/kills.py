"""Stages of a tiny job that are killed, then resumed: results must be equal."""

import contextlib
import io
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from lossyless.weights import read_checkpoint
from utils.configs.composing import compose_config
from utils.fault_drill.trials import (
    FORK,
    HUNG,
    SURVIVED,
    TIMEOUT,
    UNDETECTED,
    UNEXPLAINED,
    Outcome,
    Trials,
)
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


def settings(folder: Path, *more: str) -> list[str]:
    """Overrides of a tiny experiment that writes only to one folder."""
    places = ("results", "pretrained", "logs", "outputs", "data")
    return [*TINY, *(f"paths.{place}={folder / place}" for place in places), *more]


def run(overrides: list[str], stage: str) -> None:
    """A stage in this process, without output."""
    quiet = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with quiet[0], quiet[1], jobs.prepared(compose_config(overrides)) as cfg:
        RUN[stage](cfg)


def run_child(overrides: list[str], stage: str, kill_after: float = TIMEOUT / 2) -> int:
    """Exit code of `run` in a child process that is killed after some seconds."""
    child = FORK.Process(target=run, args=(overrides, stage))
    child.start()
    child.join(kill_after)
    child.kill()
    child.join()
    return child.exitcode


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
    """Kill a stage that starts from the folder `before`; the folder `after` is uninterrupted."""
    folder = before.parent / "run"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(before, folder)
    killed = run_child(overrides, stage, kill_after=moment)
    if code := run_child(overrides, stage):
        return Outcome(HUNG if code == SIGKILLED else UNEXPLAINED, f"resuming ended with {code}")
    found, expected = outputs(folder), outputs(after)
    if found != expected:
        wrong = [k for k in expected | found if expected.get(k) != found.get(k)]
        return Outcome(UNDETECTED, f"{wrong[:3]} differ")
    return Outcome(SURVIVED, "" if killed else "the stage ended before the kill")


def trials(n_kills: int, seeds: list[int]) -> Iterator[Trials]:
    """`n_kills` kills of each stage for each seed."""
    for seed in seeds:
        rng = random.Random(seed)
        with tempfile.TemporaryDirectory() as name:
            folder, before = Path(name, "run"), Path(name, "new")
            overrides = settings(folder, f"seed={seed}")
            before.mkdir()
            for stage in STAGES:
                shutil.rmtree(folder, ignore_errors=True)
                shutil.copytree(before, folder)
                start = time.monotonic()
                if code := run_child(overrides, stage):
                    raise RuntimeError(f"{stage}: exit code {code} without a kill")
                duration = time.monotonic() - start
                after = shutil.copytree(folder, Path(name, stage))
                moments = [rng.uniform(0, duration) for _ in range(n_kills)]
                kill = partial(_kill_and_resume, stage, overrides, before, after)
                yield Trials("kill -9", f"{stage}, seed={seed}", kill, moments)
                before = after
