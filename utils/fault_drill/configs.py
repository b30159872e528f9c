"""Malformed command lines and config files: each is valid, or one line says what is wrong."""

import contextlib
import functools
import random
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from hydra.errors import HydraException
from omegaconf import OmegaConf

from utils.cluster.sweep import check_command_line
from utils.configs import composing
from utils.configs.checks import ConfigError
from utils.configs.overrides import CONF_DIR
from utils.fault_drill.kills import settings
from utils.fault_drill.trials import (
    HUNG,
    SURVIVED,
    Row,
    Trial,
    attempt_all,
    judge,
    main_program,
    summarise,
)

VALUES: dict[str, tuple[str, ...]] = {
    "wrong type": ("text", "[1,2]", "{a: 1}", "true", "1.5", "null"),
    "negative number": ("-1", "-0.5", "-1e9"),
    "huge number": ("1e30", "99999999999999999999", "1e999", "2147483648"),
    "not a number": ("nan", "inf", "-inf", "0"),
    "empty": ("", "''", "[]", "{}"),
    "broken syntax": ("[1,", "'a", "{a", "${", "${nope}", "${oc.env:NOPE}", "a=b", "\\", "é\x00"),
}
UNKNOWN = ("{key}x=1", "{key}.x=1", "{option}x=1", "={key}", "{key}", "~{key}", "+{key}=1", "@=1")
KINDS = (*VALUES, "unknown key", "broken YAML")


def mutate(arguments: list[str], kind: str, rng: random.Random) -> list[str]:
    """The arguments with a malformed one, for a random setting."""
    node, key = OmegaConf.to_container(composing.compose_config(arguments)), ""
    while isinstance(node, dict) and node:
        name = rng.choice([name for name in node if name not in ("hydra", "paths")])
        node, key = node[name], f"{key}.{name}".lstrip(".")
    if kind == "unknown key":
        wrong = rng.choice(UNKNOWN).format(key=key, option=key.partition(".")[0])
    else:
        wrong = f"{key}={rng.choice(VALUES[kind])}"
    return [*arguments, wrong]


@contextlib.contextmanager
def broken_yaml(rng: random.Random) -> Iterator[None]:
    """A copy of conf/ in which one line of a file that every job reads is damaged."""
    with tempfile.TemporaryDirectory() as name:
        conf = shutil.copytree(CONF_DIR, Path(name, "conf"))
        file = rng.choice([conf / "main.yaml", conf / "rate/H_hyper.yaml", conf / "aggregate.yaml"])
        lines = file.read_text(encoding="utf-8").splitlines()
        at = rng.randrange(len(lines))
        ways = ("\t" + lines[at], lines[at] + ": :", "  " + lines[at], "{" + lines[at], "", "\x00")
        lines[at] = rng.choice([*ways, lines[at][: len(lines[at]) // 2]])
        file.write_text("\n".join(lines), encoding="utf-8")
        composing.CONF_DIR = conf
        try:
            yield
        finally:
            composing.CONF_DIR = CONF_DIR


_compose = composing.compose
_kept = functools.cache(lambda name, overrides: _compose(name, list(overrides)))


@contextlib.contextmanager
def keeping_configs() -> Iterator[None]:
    """Compose options once; checking a command line does it several times."""
    composing.compose = lambda name, overrides: _kept(name, tuple(overrides)).copy()
    try:
        yield
    finally:
        composing.compose = _compose


def _check(base: list[str], seed: int, case: tuple[str, int]) -> Trial:
    """Check a command line as `main.py` does before any job starts."""
    kind, number = case
    rng = random.Random(f"{seed} {case}")
    is_yaml = kind == "broken YAML"
    errors = (ConfigError, HydraException, OSError)
    with broken_yaml(rng) if is_yaml else keeping_configs():
        arguments = base if is_yaml else mutate(base, kind, rng)
        found = judge(lambda: bool(check_command_line(arguments)), errors, "")
    return Trial(found.verdict, f"{arguments[-1]}: {found.note}")


def run(n_checks: int, n_runs: int, seed: int) -> Iterator[Row]:
    """Check `n_checks` malformed settings; run `n_runs` of those that pass."""
    passed = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = settings(folder, "trainer.max_epochs=1", "communication.n_copies=1")
        for kind in KINDS:
            cases = [(kind, number) for number in range(-(-n_checks // len(KINDS)))]
            trials = attempt_all(partial(_check, base, seed), cases)
            yield summarise(kind, "checks of settings", trials, seed)
            if kind != "broken YAML":
                passed += [t.note.rpartition(": ")[0] for t in trials if t.verdict == SURVIVED]
        random.Random(seed).shuffle(passed)
        trials = []
        for argument in passed[:n_runs]:
            line = [*base, argument]
            (trial,) = attempt_all(lambda _, line=line: main_program(line), [argument], timeout=60)
            # one that trains for a long time is valid
            trials.append(Trial(SURVIVED, trial.note) if trial.verdict == HUNG else trial)
        if trials:
            yield summarise("malformed", "main.py", trials, seed)
