"""Malformed command lines: each must work, or an error must say what is wrong."""

import functools
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from hydra.errors import HydraException
from omegaconf import OmegaConf

from utils.cluster.sweep import check_command_line
from utils.configs import composing
from utils.configs.checks import ConfigError
from utils.fault_drill.jobs import settings
from utils.fault_drill.trials import ROOT, SURVIVED, Outcome, Trials, judge, judge_status

VALUES: dict[str, tuple[str, ...]] = {
    "wrong type": ("text", "[1,2]", "{a: 1}", "true", "1.5", "null", "''", "[]"),
    "wrong number": ("-1", "-0.5", "0", "nan", "inf", "1e30", "9" * 20, "2147483648"),
    "broken syntax": (
        "",
        "[1,",
        "'a",
        "{a",
        "${",
        "${nope}",
        "${oc.env:NOPE}",
        "a=b",
        "\\",
        "\x00",
    ),
}
UNKNOWN = ("{key}x=1", "{key}.x=1", "x{key}=1", "={key}", "{key}", "~{key}", "+{key}=1", "@=1")
KINDS = (*VALUES, "unknown key")
CPU_SECONDS = 30  # a whole run takes ten; a command that exceeds 30 has passed all checks

_compose = composing.compose
_kept = functools.cache(lambda name, overrides, **more: _compose(name, list(overrides), **more))


def mutate(arguments: list[str], kind: str, rng: random.Random) -> str:
    """A malformed argument for a random setting."""
    node, key = OmegaConf.to_container(composing.compose_config(arguments)), ""
    while isinstance(node, dict) and node:
        name = rng.choice([name for name in node if name not in ("hydra", "paths")])
        node, key = node[name], f"{key}.{name}".lstrip(".")
    if kind == "unknown key":
        return rng.choice(UNKNOWN).format(key=key)
    return f"{key}={rng.choice(VALUES[kind])}"


def _draw(base: list[str], kind: str, number: object) -> tuple[str, Outcome]:
    """A malformed argument, and how the checks of `main.py` handle it before any job starts."""
    # checks compose the same options several times: cache the configs, in this child process only
    composing.compose = lambda name, overrides, **more: _kept(name, tuple(overrides), **more).copy()
    argument = mutate(base, kind, random.Random(f"{kind} {number}"))
    errors = (ConfigError, HydraException, OSError)
    return argument, judge(lambda: bool(check_command_line([*base, argument])), errors, "")


def _check(base: list[str], kind: str, number: object) -> Outcome:
    argument, found = _draw(base, kind, number)
    return Outcome(found.verdict, f"{argument}: {found.note}")


def _run(base: list[str], number: str) -> Outcome:
    """Run `main.py` with a malformed setting that passes the checks."""
    rng = random.Random(number)
    draws = (_draw(base, rng.choice([*VALUES]), rng.random()) for _ in itertools.count())
    argument = next(argument for argument, found in draws if found.verdict == SURVIVED)
    found = run_command([sys.executable, "main.py", *base, argument])
    return Outcome(found.verdict, f"{argument}: {found.note}")


def run_command(line: list[str], cpu_seconds: int = CPU_SECONDS) -> Outcome:
    """Run and judge a command, which survives if it computes for longer than `cpu_seconds`.

    On a busy machine, wall time could not distinguish such a command from one that fails late.
    """

    def limit() -> None:
        import resource  # not on Windows

        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    settings = {"cwd": ROOT, "env": os.environ | {"OMP_NUM_THREADS": "1"}, "preexec_fn": limit}
    done = subprocess.run(line, **settings, capture_output=True, text=True)
    if done.returncode == -signal.SIGXCPU:
        return Outcome(SURVIVED, f"computes for over {cpu_seconds} s")
    return judge_status(done.returncode, done.stdout + done.stderr, lambda: True)


def trials(n_checks: int, n_runs: int, seed: int) -> Iterator[Trials]:
    """Check `n_checks` malformed settings; run `n_runs` that pass the checks."""
    n_each = -(-n_checks // len(KINDS))
    cases = [f"{seed} {number}" for number in range(max(n_each, n_runs))]
    with tempfile.TemporaryDirectory() as folder:
        base = settings(Path(folder), "trainer.max_epochs=1", "communication.n_copies=1")
        for kind in KINDS:
            yield Trials(kind, "checks of settings", partial(_check, base, kind), cases[:n_each])
        yield Trials("malformed", "main.py", partial(_run, base), cases[:n_runs])
