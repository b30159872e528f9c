"""Malformed command lines: each is valid, or an error says what is wrong."""

import functools
import random
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from hydra.errors import HydraException
from omegaconf import OmegaConf

from utils.cluster.sweep import check_command_line
from utils.configs import composing
from utils.configs.checks import ConfigError
from utils.fault_drill.kills import settings
from utils.fault_drill.trials import Outcome, Trials, judge

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

_compose = composing.compose
_kept = functools.cache(lambda name, overrides: _compose(name, list(overrides)))


def mutate(arguments: list[str], kind: str, rng: random.Random) -> str:
    """A malformed argument for a random setting."""
    node, key = OmegaConf.to_container(composing.compose_config(arguments)), ""
    while isinstance(node, dict) and node:
        name = rng.choice([name for name in node if name not in ("hydra", "paths")])
        node, key = node[name], f"{key}.{name}".lstrip(".")
    if kind == "unknown key":
        return rng.choice(UNKNOWN).format(key=key)
    return f"{key}={rng.choice(VALUES[kind])}"


def _check(base: list[str], kind: str, number: object) -> Outcome:
    """What the checks of `main.py` say of a malformed argument before any job starts."""
    # checking composes the same options several times; only this child process keeps them
    composing.compose = lambda name, overrides: _kept(name, tuple(overrides)).copy()
    argument = mutate(base, kind, random.Random(f"{kind} {number}"))
    errors = (ConfigError, HydraException, OSError)
    found = judge(lambda: bool(check_command_line([*base, argument])), errors, "")
    return Outcome(found.verdict, f"{argument}: {found.note}")


def trials(n_trials: int, seed: int) -> Iterator[Trials]:
    """`n_trials` malformed settings, spread evenly over the kinds."""
    cases = [f"{seed} {number}" for number in range(-(-n_trials // len(KINDS)))]
    with tempfile.TemporaryDirectory() as folder:
        base = settings(Path(folder), "trainer.max_epochs=1", "communication.n_copies=1")
        for kind in KINDS:
            yield Trials(kind, "checks of settings", partial(_check, base, kind), cases)
