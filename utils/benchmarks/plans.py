"""Jobs and training steps of each script in bin/ at the paper's size."""

import functools
import itertools
import math
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from utils.benchmarks.steps import Step
from utils.configs.checks import is_network
from utils.configs.composing import compose_config, expand
from utils.configs.overrides import CONF_DIR, is_group, parse
from utils.runs.identity import IDENTITY, digest, feature_identity, has_tower, run_hash
from utils.search.space import Space

UNTRAINED = ("none", "clip_download_data")  # experiments without training
# Searched settings that affect neither the cost of a step nor the sharing of compressors.
SAME_COST = re.compile("optimizer|scheduler|anneal|warmup|temperature|quality|seed_pred")
OF_PREDICTORS = {*IDENTITY["communication"], *IDENTITY["predictor"]}


class Plan(NamedTuple):
    """Jobs, steps of each kind and linear evaluations of an experiment in a script."""

    n_jobs: int
    steps: Counter[Step]
    n_linear: int

    def n_steps(self, stage: str) -> int:
        return sum(n for step, n in self.steps.items() if step.stage == stage)

    def __add__(self, other: "Plan") -> "Plan":
        return Plan(self.n_jobs + other[0], self.steps + other[1], self.n_linear + other[2])


def launches() -> Iterator[tuple[str, list[str]]]:
    """Each script with the overrides of each sweep it starts; then experiments without a script.

    Scripts run in a copy of bin/ and conf/ with a stub of Python that records its arguments.
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


def plan(overrides: Sequence[str], trained: set[str]) -> Plan:
    """All work of a sweep except what is in `trained`, which is updated.

    Parameters
    ----------
    trained : identities of compressors and features that jobs share.
    """

    def is_new(*identity: object) -> bool:
        key = digest(identity)
        return key not in trained and not trained.add(key)

    steps: Counter[Step] = Counter()
    overrides = expand(overrides)
    hypopt = _config(tuple(overrides)).hypopt
    n_trials = 0 if hypopt.name == "none" else hypopt.n_trials
    swept = [o for o in parse(overrides) if o.is_sweep_override()]
    drawn = {(o.package or o.key_or_group).split(".")[0] for o in swept}
    n_linear, jobs = 0, _jobs(overrides, n_trials)
    for job, n_jobs in jobs.items():
        cfg = _config(job)
        if has_tower(cfg):
            cfg.tower.kwargs.weights = "random"
            for place in ("data_feat",) if cfg.is_only_feat else ("data_feat", "data_pred"):
                copies = (cfg.tower if place == "data_feat" else cfg.communication).n_copies
                which = feature_identity(cfg, place), copies > 1 and cfg.seed
                images = copies * cfg[place].length * is_new(*which)
                steps[Step.of(cfg, "tower")] += math.ceil(images / cfg.tower.batch_size)
        if cfg.featurizer.is_learned:
            is_own = n_trials and not drawn <= OF_PREDICTORS  # each trial draws a compressor
            n = n_jobs if is_own else is_new(run_hash(cfg, "featurizer"))
            steps[Step.of(cfg, "featurizer")] += n * _n_steps(cfg, "trainer", "data_feat")
        if not cfg.is_only_feat and is_network(cfg.predictor):
            n_steps = _n_steps(cfg, "trainer_pred", "data_pred")
            steps[Step.of(cfg, "predictor")] += n_jobs * n_steps
        elif not cfg.is_only_feat:
            n_linear += n_jobs
    return Plan(jobs.total(), +steps, n_linear)


def _config(job: Sequence[str]) -> DictConfig:
    """The config of a job; each combination of options is composed once."""
    parsed = [o for o in parse(job) if not o.is_sweep_override()]
    cfg = _composed(tuple(o.input_line for o in parsed if is_group(o))).copy()
    for override in parsed:
        if not is_group(override):
            OmegaConf.update(cfg, override.key_or_group, override.value())
    return cfg


_composed = functools.cache(compose_config)


def _jobs(overrides: Sequence[str], n_trials: int) -> Counter[tuple[str, ...]]:
    """Overrides of the jobs of a sweep, or of the trials of a search: these have the middle of each
    interval, and take turns in the values of each choice."""
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
    batches, limit = math.ceil(n / batch_size) - is_single_dropped, cfg.trainer.limit_train_batches
    return cfg[trainer].max_epochs * (int(batches * limit) if isinstance(limit, float) else limit)
