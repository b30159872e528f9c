"""Profiles training steps at the paper's sizes: `bin/benchmark.sh --only gpu`.

Reports, for each training run, milliseconds per step, kernels per step, the fraction of the time
that the GPU is busy, the places where the host waits for the GPU, and seconds per checkpoint.
Without a GPU, it is a smoke test: a few steps on small batches, counting CPU operators instead of
kernels.

Nothing is downloaded: the Banana is sampled, scikit-learn's digits replace MNIST at the same size
and with the same augmentations, and all other examples are noise.
"""

import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch.profiler import ProfilerActivity, profile

from utils.benchmarks.steps import Step, train
from utils.configs.composing import compose_config
from utils.training import building
from utils.training.fitting import quiet

BANANA = ("experiment=banana_viz_VIC", "distortion=VIC")
IMAGES = ("experiment=augmnist_viz_VIC", "distortion=VIC", "data@data_feat=digits")
IMAGES = (*IMAGES, "data_feat.kwargs.side=32")
STL10 = ("experiment=STL10_understand_VIC", "distortion=VIC")
CLIP = ("experiment=clip_bottleneck_pretrain", "tower.kwargs.weights=random")
# Stage, overrides, and whether the data are noise.
TRAININGS: tuple[tuple[str, tuple[str, ...], bool], ...] = (
    ("featurizer", BANANA, False),
    ("featurizer", IMAGES, False),
    ("featurizer", (*IMAGES, "trainer.precision=bf16-mixed"), False),
    ("featurizer", (*IMAGES, "trainer.precision=32-true"), False),
    ("predictor", BANANA, True),
    ("predictor", IMAGES, True),
    ("featurizer", STL10, True),
    ("featurizer", CLIP, True),
)
SMALL_BATCHES = ("data_feat.kwargs.batch_size=8", "data_pred.kwargs.batch_size=8")
MAX_LISTED = 6  # places or kernels listed in one finding


class Phases(NamedTuple):
    """How many steps a `Meter` skips, times and profiles, in that order."""

    n_warm_up: int
    n_timed: int
    n_profiled: int


FULL, SMOKE_TEST = Phases(20, 50, 20), Phases(1, 2, 1)


def report(*, is_quick: bool = False) -> None:
    """Print the findings about each training run as lines that begin with RESULT.

    A run that fails does not stop the others; all errors are raised together at the end.
    """
    quiet()
    errors: list[Exception] = []
    is_smoke_test = is_quick or not torch.cuda.is_available()
    phases, small = (SMOKE_TEST, SMALL_BATCHES) if is_smoke_test else (FULL, ())
    for stage, overrides, is_noise in TRAININGS:
        try:
            for line in measure(stage, (*overrides, *small), phases, is_noise=is_noise):
                print(f"RESULT {line}", flush=True)
        except Exception as error:
            print(f"RESULT FAILED {stage} of {' '.join(overrides)}: {error!r}", flush=True)
            errors.append(error)
    if errors:
        raise ExceptionGroup(f"{len(errors)} of {len(TRAININGS)} training runs failed", errors)


def measure(
    stage: str, overrides: Sequence[str], phases: Phases, *, is_noise: bool
) -> Iterator[str]:
    """Yield findings about the training of a stage, one line each."""
    cfg = compose_config(["logger=none", *overrides])
    step, meter = Step.of(cfg, stage), Meter(building.pick_device(cfg), phases)
    if is_noise:
        source = torch.rand(step.batch_size, *step.shape)
    else:
        source = building.build_data(cfg, "data_feat", cfg.distortion.kwargs.needs)
    train(step, source, sum(phases), meter)
    name = f"{cfg.experiment_name} {stage} ({cfg.trainer.precision}{', noise' if is_noise else ''})"
    average = mean(meter.seconds)
    yield (
        f"{name}: {1e3 * median(meter.seconds):.2f} ms a step (mean {1e3 * average:.2f}), "
        f"{step.batch_size / average:,.0f} examples/s; {meter.describe_work(average)}"
    )
    yield f"{name}: {meter.describe_waits()}; {meter.checkpoint}"


class Meter(Callback):
    """Times some steps of a trainer, profiles some more, then saves a checkpoint.

    Attributes
    ----------
    seconds : duration of each timed step, including data and hooks. The device is synchronised
        only before the first and after the last one.
    work : total microseconds and calls of each kernel or copy (on a CPU, of each operator) in the
        profiled steps.
    waits : how often the host waits for the GPU in these steps, by line of code.
    checkpoint : size of a checkpoint and time to save it, as text.
    """

    def __init__(self, device: torch.device, phases: Phases):
        self.device, self.phases = device, phases
        self.seconds: list[float] = []
        self.work: dict[str, tuple[float, int]] = {}
        self.waits: Counter[str] = Counter()
        self._profiling = ExitStack()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        n_done = batch_idx + 1
        timed_from = self.phases.n_warm_up
        timed_until = timed_from + self.phases.n_timed
        if n_done in (timed_from, timed_until, sum(self.phases)) and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        if timed_from < n_done <= timed_until:
            self.seconds.append(time.perf_counter() - self._last)
        if n_done == timed_until:
            self._start_profiling()
        elif n_done == sum(self.phases):
            self._stop_profiling()
            self.checkpoint = _time_checkpoint(trainer)
        self._last = time.perf_counter()

    def _start_profiling(self) -> None:
        activity = getattr(ProfilerActivity, self.device.type.upper())
        self._profile = self._profiling.enter_context(profile(activities=[activity]))
        self._warnings = self._profiling.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        if self.device.type == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
            self._profiling.callback(torch.cuda.set_sync_debug_mode, "default")

    def _stop_profiling(self) -> None:
        self._profiling.close()
        kind = "cpu" if self.device.type == "cpu" else "device"
        for event in self._profile.key_averages():
            if microseconds := getattr(event, f"self_{kind}_time_total"):
                self.work[event.key] = microseconds, event.count
        self.waits = Counter(
            f"{'/'.join(Path(warning.filename).parts[-2:])}:{warning.lineno}"
            for warning in self._warnings
            if "synchroniz" in str(warning.message)
        )

    def describe_work(self, seconds: float) -> str:
        """Describe the kernels per step and their share of `seconds`; print the slowest ones."""
        n_steps = self.phases.n_profiled
        total, count = (sum(column) / n_steps for column in zip(*self.work.values(), strict=True))
        largest = sorted(self.work.items(), key=lambda item: item[1], reverse=True)[:MAX_LISTED]
        for name, (microseconds, _) in largest:
            print(f"    {microseconds / 1e3 / n_steps:.3f} ms a step: {name[:90]}")
        unit = "kernels" if self.device.type == "cuda" else "operators"
        busy = total / 1e6 / seconds
        return f"{count:.0f} {unit} a step, {self.device.type.upper()} busy {busy:.0%}"

    def describe_waits(self) -> str:
        n_steps = self.phases.n_profiled
        places = self.waits.most_common(MAX_LISTED)
        listed = ", ".join(f"{n / n_steps:g} in {place}" for place, n in places)
        text = f"waits for the GPU {self.waits.total() / n_steps:g} times a step"
        return f"{text} ({listed})" if listed else text


def _time_checkpoint(trainer: pl.Trainer) -> str:
    """Size of a checkpoint and time to write it; see `utils.training.checkpoints`."""
    with tempfile.TemporaryDirectory() as folder:
        path, start = Path(folder, "x.ckpt"), time.perf_counter()
        trainer.save_checkpoint(path)
        trainer.strategy.checkpoint_io.write()
        seconds = time.perf_counter() - start
        return f"checkpoint of {path.stat().st_size / 1e6:.0f} MB in {seconds:.2f} s"
