"""SIGKILL at random moments of each stage, then a resumption: results must be equal."""

import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from lossyless.weights import read_checkpoint
from utils.aggregation import aggregate
from utils.configs.composing import compose_config
from utils.fault_drill.trials import (
    FORK,
    HUNG,
    SURVIVED,
    TIMEOUT,
    UNDETECTED,
    UNEXPLAINED,
    Row,
    Trial,
    command,
    judge_command,
    summarise,
    timed,
)
from utils.runs.files import read_csv
from utils.runs.identity import STAGES, experiment_folder
from utils.runs.run import BEST
from utils.training import jobs, stages

RUN = dict(zip(STAGES, (stages.featurizer, stages.communicate, stages.predict), strict=True))
STEPS = (*STAGES, "aggregate")
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


def settings(folder: Path, *more: str) -> list[str]:
    """Overrides of a tiny experiment that writes only to one folder."""
    places = ("results", "pretrained", "logs", "outputs", "data")
    return [*TINY, *(f"paths.{place}={folder / place}" for place in places), *more]


def _step(name: str, overrides: list[str]) -> None:
    """One step in a child process; its output goes to the log."""
    log = os.open(os.devnull, os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    cfg = compose_config(overrides)
    if name == "aggregate":
        aggregate(cfg.aggregate, Path(cfg.paths.results) / experiment_folder(cfg))
        return
    with jobs.prepared(cfg) as cfg:
        RUN[name](cfg)


def _run(target: Callable[[], None], kill_after: float = TIMEOUT) -> tuple[int, float]:
    """Exit code and duration of a child process that is killed after some seconds."""
    start = time.monotonic()
    child = FORK.Process(target=target)
    child.start()
    child.join(kill_after)
    child.kill()
    child.join()
    return child.exitcode, time.monotonic() - start


def outputs(folder: Path, pattern: str = "*") -> dict[str, object]:
    """Results and tables without durations, compressed files, and trained weights in a folder."""
    found: dict[str, object] = {}
    for file in sorted(folder.glob(f"*/**/{pattern}")):
        name = str(file.relative_to(folder))
        if file.suffix == ".csv":
            rows = read_csv(file)
            found[name] = [{k: v for k, v in row.items() if "_time" not in k} for row in rows]
        elif file.suffix == ".lossyless":
            found[name] = file.read_bytes()
        elif file.name == BEST:
            state = read_checkpoint(file)["state_dict"]
            found[name] = {k: v.numpy().tobytes() for k, v in state.items() if torch.is_tensor(v)}
    return found


def _kill_and_resume(before: Path, after: Path, step: str, overrides, moment: float) -> Trial:
    """Kill a step that starts from the folder `before`; the folder `after` is uninterrupted."""
    folder = before.parent / "run"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(before, folder)
    killed, _ = _run(partial(_step, step, overrides), moment)
    code, seconds = _run(partial(_step, step, overrides))
    when = f"after a kill at {moment:.2f} s"
    if code:
        return Trial(HUNG if seconds >= TIMEOUT else UNEXPLAINED, f"ended with {code} {when}")
    found, expected = outputs(folder), outputs(after)
    if found != expected:
        wrong = [k for k in expected | found if expected.get(k) != found.get(k)]
        return Trial(UNDETECTED, f"{wrong[:3]} differ {when}")
    if left := [*folder.rglob("*.tmp"), *folder.rglob("*.part")]:
        return Trial(UNEXPLAINED, f"{left[0].name} remains {when}")
    return Trial(SURVIVED, "" if killed else f"it ended before the kill at {moment:.2f} s")


def _kill_command(after: Path, overrides: list[str], moment: float) -> Trial:
    """Kill `python main.py`, then run it again."""
    folder = after.parent / "run"
    shutil.rmtree(folder, ignore_errors=True)
    command("main.py", *overrides, timeout=moment)
    done = command("main.py", *overrides)
    what = "*results_*"
    return judge_command(done, lambda: outputs(folder, what) == outputs(after, what))


def run(n_kills: int, seeds: list[int], n_commands: int) -> Iterator[Row]:
    """`n_kills` kills of each step for each seed; and of the whole command, `n_commands` each."""
    for seed in seeds:
        rng = random.Random(seed)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name, "run")
            overrides = settings(folder, f"seed={seed}")
            before = Path(name, "new")
            before.mkdir()
            for step in STEPS:
                shutil.copytree(before, folder, dirs_exist_ok=True)
                code, duration = _run(partial(_step, step, overrides))
                if code:
                    raise RuntimeError(f"{step} fails without a fault, with exit code {code}")
                after = shutil.copytree(folder, Path(name, step))
                moments = [rng.uniform(0, duration) for _ in range(n_kills)]
                kill = partial(timed, _kill_and_resume, before, after, step, overrides)
                yield summarise("kill -9", step, [*map(kill, moments)], seed)
                before = after
            start = time.monotonic()
            shutil.rmtree(folder)
            command("main.py", *overrides)
            duration = time.monotonic() - start
            moments = [rng.uniform(0, duration) for _ in range(n_commands)]
            kill = partial(timed, _kill_command, after, overrides)
            yield summarise("kill -9", "main.py", [*map(kill, moments)], seed)
