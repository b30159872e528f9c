"""Estimates how many hours each experiment takes at the paper's size.

The numbers of steps follow from the configs. One step of each kind is measured on this device and
extrapolated to an H100. Neither data sets nor weights are needed; see `utils.benchmarks.steps`.
"""

import functools
import itertools
import math
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from utils.benchmarks.steps import Cost, Step, measure
from utils.configs.checks import is_network
from utils.configs.composing import compose_config, expand
from utils.configs.overrides import CONF_DIR, is_group, parse
from utils.runs.identity import IDENTITY, digest, feature_identity, has_tower, run_hash
from utils.runs.provenance import cpu_name
from utils.search.space import Space
from utils.training.fitting import quiet

# Training a ResNet18 on 32x32 images takes 32.3 PFLOP, or 7 minutes on an A100 (measured by others:
# github.com/KellerJordan/cifar10-airbench). An H100 SXM has a memory bandwidth of 3.35 TB/s, an
# A100 of 2.04 TB/s. The resulting speed is 13 % of the H100's dense half-precision peak.
H100_FLOPS = 32.3e15 / (7 * 60) * 3.35 / 2.04
# A step takes as long as the host needs to launch its kernels or the GPU to run them, whichever is
# longer. Assumed upper bounds on the seconds per launch from Python and per step in the trainer:
LAUNCH_SECONDS, TRAINER_SECONDS = 12e-6, 1e-3
CPU_CORES = 2
STAGES = ("featurizer", "predictor", "tower")
JOBS, LINEAR = "jobs", "linear evaluations"
UNTRAINED = ("none", "clip_download_data")  # experiments without training
# Searched settings that affect neither the cost of a step nor which jobs share a compressor.
SAME_COST = re.compile("optimizer|scheduler|anneal|warmup|temperature|quality|seed_pred")
OF_PREDICTORS = {*IDENTITY["communication"], *IDENTITY["predictor"]}

Work = Counter[Step | str]  # numbers of steps of each kind, of JOBS, and of LINEAR evaluations


# --- the table


def report(pattern: str = "") -> None:
    """Print a Markdown table of the scripts and experiments whose names contain `pattern`."""
    quiet()
    found: dict[tuple[str, str], Work] = {}
    trained: dict[str, set[str]] = {}
    for script, overrides in launches():
        row = script, overrides[0].partition("=")[2]
        if pattern in " ".join(row):
            print(f"[{' '.join(overrides)}]", file=sys.stderr, flush=True)
            found.setdefault(row, Counter()).update(
                plan(overrides, trained.setdefault(script, set()))
            )
    is_gpu = torch.cuda.is_available()
    device = f"{torch.cuda.get_device_name()} (wall time)" if is_gpu else _describe_cpu()
    print(f"{device}, torch {torch.__version__}, {date.today()}\n")
    columns = ["script", "experiment", "jobs", *(f"steps, {stage}" for stage in STAGES)]
    columns += [f"seconds per step ({stage})" for stage in STAGES]
    where = "this GPU" if is_gpu else f"{CPU_CORES} cores"
    columns += [f"hours, {where}", "hours, one H100 (computed)"]
    print(_line(columns), _line(["---", "---", *["--:"] * 9]), sep="\n")
    for row, work in found.items():
        print(_line([*(f"`{name}`" for name in row), *_cells(work)]), flush=True)
    print("\nHow to read this table: bin/README.md")


def h100_seconds(cost: Cost) -> float:
    """Estimated (not measured) seconds per step on an H100."""
    launches = TRAINER_SECONDS + cost.n_kernels * LAUNCH_SECONDS
    return max(launches, cost.flops / H100_FLOPS)


def _describe_cpu() -> str:
    return f"{CPU_CORES} cores of {cpu_name()} (CPU time of one thread / {CPU_CORES})"


def _cells(work: Work) -> list[str]:
    """Cells of a row, apart from the names."""
    cores = 1 if torch.cuda.is_available() else CPU_CORES
    n_steps, seconds, h100 = Counter(), Counter(), 0.0
    for step, n in work.items():
        if isinstance(step, Step):
            cost = measure(step)
            n_steps[step.stage] += n
            seconds[step.stage] += n * cost.seconds / cores
            h100 += n * h100_seconds(cost)
    counts = {s: f"{n_steps[s]:,}" if n_steps[s] else "" for s in STAGES}
    if work[LINEAR]:
        counts["predictor"] = f"{work[LINEAR]} SVMs"
    means = (f"{seconds[s] / n_steps[s]:.2g}" if n_steps[s] else "" for s in STAGES)
    hours = (_hours(total) for total in (seconds.total(), h100))
    return [f"{work[JOBS]:,}", *counts.values(), *means, *hours]


def _hours(seconds: float) -> str:
    if 0 < seconds < 180:
        return "< 0.1"
    return f"{seconds / 3600:,.{0 if seconds > 36_000 else 1}f}" if seconds else ""


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


# --- jobs and training steps


def launches() -> Iterator[tuple[str, list[str]]]:
    """Yield (command, overrides) for each sweep of a script and each experiment without a script.

    Scripts run in a copy of bin/ and conf/, with a stub for Python that records its arguments.
    """
    left = {file.stem for file in CONF_DIR.glob("experiment/*.yaml")} - {*UNTRAINED}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("bin", "conf"):
            shutil.copytree(CONF_DIR.parent / name, Path(folder) / name)
        python, calls = Path(folder) / ".venv/bin/python", Path(folder) / "calls"
        python.parent.mkdir(parents=True)
        python.write_text(f"#!/bin/sh\necho $* >>{calls}\n")
        python.chmod(0o755)
        for script in sorted(Path(folder).glob("bin/**/*.sh")):
            if not re.match(r"#!(?s:.*)\n *launch", script.read_text()):
                continue
            calls.write_text("")
            subprocess.run(script, cwd=folder, stdout=subprocess.DEVNULL, check=True)
            for line in calls.read_text().splitlines():
                if line.startswith("main.py"):
                    experiment, *settings = line.split()[1:]
                    left.discard(experiment.partition("=")[2])
                    places = [setting for setting in settings if "@" in setting]
                    yield str(script.relative_to(folder)), [experiment, *places]
    yield from (("python main.py", [f"experiment={name}"]) for name in sorted(left))


def plan(overrides: Sequence[str], trained: set[str]) -> Work:
    """All the work in a sweep, except for the compressors and features already in `trained`.

    Parameters
    ----------
    trained : identities of the compressors and features counted so far; updated in place.
    """

    def is_new(*identity: object) -> bool:
        key = digest(identity)
        return key not in trained and not trained.add(key)

    work: Work = Counter()
    overrides = expand(overrides)
    hypopt = _config(tuple(overrides)).hypopt
    n_trials = 0 if hypopt.name == "none" else hypopt.n_trials
    swept = [o for o in parse(overrides) if o.is_sweep_override()]
    drawn = {(o.package or o.key_or_group).split(".")[0] for o in swept}
    for job, n_jobs in _jobs(overrides, n_trials).items():
        cfg = _config(job)
        work[JOBS] += n_jobs
        if has_tower(cfg):
            cfg.tower.kwargs.weights = "random"
            for place in ("data_feat",) if cfg.is_only_feat else ("data_feat", "data_pred"):
                copies = (cfg.tower if place == "data_feat" else cfg.communication).n_copies
                which = feature_identity(cfg, place), copies > 1 and cfg.seed
                images = copies * cfg[place].length * is_new(*which)
                work[Step.of(cfg, "tower")] += math.ceil(images / cfg.tower.batch_size)
        if cfg.featurizer.is_learned:
            is_own = n_trials and not drawn <= OF_PREDICTORS  # each trial trains its own
            n = n_jobs if is_own else is_new(run_hash(cfg, "featurizer"))
            work[Step.of(cfg, "featurizer")] += n * _n_steps(cfg, "trainer", "data_feat")
        if not cfg.is_only_feat and is_network(cfg.predictor):
            n_steps = _n_steps(cfg, "trainer_pred", "data_pred")
            work[Step.of(cfg, "predictor")] += n_jobs * n_steps
        elif not cfg.is_only_feat:
            work[LINEAR] += n_jobs
    return +work


def _config(job: Sequence[str]) -> DictConfig:
    """The config of a job; each combination of options is composed once."""
    parsed = [o for o in parse(job) if not o.is_sweep_override()]
    cfg = _composed(tuple(o.input_line for o in parsed if is_group(o))).copy()
    for override in parsed:
        if not is_group(override):
            key, value = override.key_or_group, override.value()
            OmegaConf.update(cfg, key, value, force_add=override.is_add())
    return cfg


_composed = functools.cache(compose_config)


def _jobs(overrides: Sequence[str], n_trials: int) -> Counter[tuple[str, ...]]:
    """Count the jobs of a sweep or the trials of a search, by their overrides.

    Trials use the midpoint of each interval and cycle through choices that affect the cost.
    """
    space = Space.of(overrides)
    values = {key: _values(drawn) for key, drawn in space.distributions.items()}
    found = itertools.product(*values.values())
    if n_trials:
        values = {k: v[:1] if SAME_COST.search(k) else v for k, v in values.items()}
        found = ([v[i % len(v)] for v in values.values()] for i in range(n_trials))
    return Counter(space.job(dict(zip(values, job, strict=True))) for job in found)


def _values(drawn: BaseDistribution) -> Sequence[object]:
    if isinstance(drawn, CategoricalDistribution):
        return drawn.choices
    middle = (drawn.low + drawn.high) / 2
    if drawn.log:
        middle = math.sqrt(drawn.low * drawn.high)
    return [round(middle) if isinstance(drawn, IntDistribution) else middle]


def _n_steps(cfg: DictConfig, trainer: str, place: str) -> int:
    n, batch_size = cfg[place].length, cfg[place].kwargs.batch_size
    is_single_dropped = n > batch_size and n % batch_size == 1
    n_batches = math.ceil(n / batch_size) - is_single_dropped
    limit = cfg[trainer].get("limit_train_batches", cfg.trainer.limit_train_batches)
    limited = int(n_batches * limit) if isinstance(limit, float) else min(n_batches, limit)
    return cfg[trainer].max_epochs * limited
