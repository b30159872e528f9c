"""What training steps at the paper's sizes wait for: `bin/benchmark.sh --only gpu`.

For each training: milliseconds per step, kernels per step, the fraction of the time in which the
GPU works, where the host waits for the GPU, and seconds per checkpoint. Without a GPU it is a
smoke test: a few steps on small batches, with CPU operators in place of kernels.

Nothing is downloaded: the Banana is sampled, scikit-learn's digits stand in for MNIST at the same
size and with the same augmentations, and all other examples are noise.
"""

import json
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch.profiler import ProfilerActivity, profile

from utils.benchmarks.setups import RepeatedEpochs
from utils.benchmarks.steps import Step, train
from utils.configs.composing import compose_config
from utils.training import building
from utils.training.fitting import quiet

BANANA = ("experiment=banana_viz_VIC", "distortion=VIC")
IMAGES = ("experiment=augmnist_viz_VIC", "distortion=VIC", "data@data_feat=digits")
IMAGES = (*IMAGES, "data_feat.kwargs.side=32")
STL10 = ("experiment=STL10_understand_VIC", "distortion=VIC")
CLIP = ("experiment=clip_bottleneck_pretrain", "tower.kwargs.weights=random")
# Stage, overrides, whether the data are noise.
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
# Categories of events in a trace of torch.profiler.
WORK = {"cuda": {"kernel", "gpu_memcpy", "gpu_memset"}, "cpu": {"cpu_op"}}
MAX_LISTED = 6  # places and kernels in one finding


@dataclass(frozen=True)
class Phases:
    """How many steps a `Meter` skips, times, watches for waits, and profiles, in this order."""

    n_warm_up: int
    n_timed: int
    n_watched: int
    n_profiled: int

    @property
    def n_steps(self) -> int:
        return self.n_warm_up + self.n_timed + self.n_watched + self.n_profiled


FULL, SMOKE_TEST = Phases(20, 50, 2, 20), Phases(1, 2, 1, 1)


def report(*, is_quick: bool = False) -> None:
    """Print the findings of each training, as lines that begin with RESULT.

    A training that fails does not stop the others; all errors are raised at the end.
    """
    quiet()
    errors: list[Exception] = []
    is_smoke_test = is_quick or not torch.cuda.is_available()
    phases = SMOKE_TEST if is_smoke_test else FULL
    for stage, overrides, is_noise in TRAININGS:
        small = SMALL_BATCHES if is_smoke_test else ()
        try:
            for line in measure(stage, (*overrides, *small), phases, is_noise=is_noise):
                print(f"RESULT {line}", flush=True)
        except Exception as error:
            print(f"RESULT FAILED {stage} of {' '.join(overrides)}: {error!r}", flush=True)
            errors.append(error)
    if errors:
        raise ExceptionGroup(f"{len(errors)} of {len(TRAININGS)} trainings failed", errors)


def measure(
    stage: str, overrides: Sequence[str], phases: Phases, *, is_noise: bool
) -> Iterator[str]:
    """Findings about the training of a stage, one line each."""
    cfg = compose_config(["logger=none", *overrides])
    step, device = Step.of(cfg, stage), building.pick_device(cfg)
    if is_noise:
        source = torch.rand(step.batch_size, *step.shape)
    else:
        data = building.build_data(cfg, "data_feat", cfg.distortion.kwargs.needs)
        source = RepeatedEpochs(data, phases.n_steps)
    meter = Meter(device, phases)
    train(step, source, phases.n_steps, meter)
    name = f"{cfg.experiment_name} {stage} ({cfg.trainer.precision}{', noise' if is_noise else ''})"
    average = mean(meter.seconds)
    unit = "kernels" if device.type == "cuda" else "operators"
    yield (
        f"{name}: {1e3 * median(meter.seconds):.2f} ms a step (mean {1e3 * average:.2f}), "
        f"{step.batch_size / average:,.0f} examples/s; {meter.work.n_per_step:.0f} {unit} a step, "
        f"{device.type.upper()} busy {meter.work.seconds_per_step / average:.0%}"
    )
    yield f"{name}: {meter.waits}; {meter.checkpoint}"
    for kernel, seconds in meter.work.largest:
        print(f"    {1e3 * seconds:.3f} ms a step: {kernel[:90]}")


class Meter(Callback):
    """Times the steps of a trainer, watches where they wait, profiles them, saves a checkpoint.

    Attributes
    ----------
    seconds : list of float
        Of each timed step, with its data and hooks. The device is synchronised only before the
        first and after the last one.
    waits, checkpoint : str
        Findings, in words.
    work : Work
    """

    def __init__(self, device: torch.device, phases: Phases):
        self.device = device
        self.seconds: list[float] = []
        self._timed_from = phases.n_warm_up
        self._timed_until = phases.n_warm_up + phases.n_timed
        self._watched_until = self._timed_until + phases.n_watched
        self._phases = phases

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        n_done = batch_idx + 1
        if n_done in (self._timed_from, self._timed_until):
            self._synchronise()
        if self._timed_from < n_done <= self._timed_until:
            self.seconds.append(time.perf_counter() - self._last)
        if n_done == self._timed_until:
            self._watch = Waits(self.device)
        elif n_done == self._watched_until:
            self.waits = self._watch.stop(self._phases.n_watched)
            self._profile = profile(
                activities=[getattr(ProfilerActivity, self.device.type.upper())]
            )
            self._profile.start()
        elif n_done == self._phases.n_steps:
            self._synchronise()
            self._profile.stop()
            events = _events(self._profile)
            self.work = Work.of(events, self.device.type, self._phases.n_profiled)
            self.checkpoint = _time_checkpoint(trainer)
        self._last = time.perf_counter()

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class Waits:
    """Counts, from its creation until `stop`, where the host waits for the GPU."""

    def __init__(self, device: torch.device):
        self.device = device
        self._catcher = warnings.catch_warnings(record=True)
        self._caught = self._catcher.__enter__()
        warnings.simplefilter("always")
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("warn")

    def stop(self, n_steps: int) -> str:
        if self.device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
        self._catcher.__exit__(None, None, None)
        places = Counter(
            f"{'/'.join(Path(warning.filename).parts[-2:])}:{warning.lineno}"
            for warning in self._caught
            if "synchroniz" in str(warning.message)
        )
        listed = (f"{n / n_steps:g} in {place}" for place, n in places.most_common(MAX_LISTED))
        text = f"waits for the GPU {places.total() / n_steps:g} times a step"
        return f"{text} ({', '.join(listed)})" if places else text


@dataclass(frozen=True)
class Work:
    """What a device does in a step: kernels and copies, or operators of a CPU.

    Attributes
    ----------
    n_per_step : how many.
    seconds_per_step : time in which at least one of them runs.
    largest : names and seconds per step of those that take longest.
    """

    n_per_step: float
    seconds_per_step: float
    largest: list[tuple[str, float]]

    @classmethod
    def of(cls, events: Sequence[Mapping], device_type: str, n_steps: int) -> "Work":
        """From the events of a trace, which may overlap and whose times are microseconds."""
        found = [e for e in events if e.get("cat") in WORK[device_type] and "dur" in e]
        busy, end = 0.0, float("-inf")
        totals: Counter[str] = Counter()
        for event in sorted(found, key=lambda event: event["ts"]):
            start, stop = event["ts"], event["ts"] + event["dur"]
            busy += max(0.0, stop - max(start, end))
            end = max(end, stop)
            totals[event["name"]] += event["dur"]
        largest = [(name, us / 1e6 / n_steps) for name, us in totals.most_common(MAX_LISTED)]
        return cls(len(found) / n_steps, busy / 1e6 / n_steps, largest)


def _events(profiler: profile) -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(path))
        return json.loads(path.read_text(encoding="utf-8"))["traceEvents"]


def _time_checkpoint(trainer: pl.Trainer) -> str:
    """Size and time of a checkpoint, of which each epoch writes up to two."""
    with tempfile.TemporaryDirectory() as folder:
        path, start = Path(folder, "x.ckpt"), time.perf_counter()
        trainer.save_checkpoint(path)
        seconds = time.perf_counter() - start
        return f"checkpoint of {path.stat().st_size / 1e6:.0f} MB in {seconds:.2f} s"
