"""Composes configs from command lines: sweeps and modes of experiments, checked overrides."""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    IntervalSweep,
    Override,
    Quote,
    QuotedString,
    ValueType,
)
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.nodes import Node

from utils.configs import resolvers
from utils.configs.checks import CLASS, ConfigError, expected_kind, find_node

CONF_DIR = Path(__file__).resolve().parents[2] / "conf"
# Text that needs no quotes in Hydra's grammar, except the words in NO_TEXT.
PLAIN = re.compile(r"[A-Za-z_][\w./-]*", re.ASCII)
# hydra-optuna-sweeper's name of the multi-objective sampler that Optuna merged into TPESampler.
MOTPE, TPE = "hydra/sweeper/sampler=motpe", "hydra/sweeper/sampler=tpe"
NO_TEXT = {"null", "true", "false", "nan", "inf"}
# Hydra only discovers launchers and sweepers in a package `hydra_plugins`.
sys.path.append(str(Path(__file__).resolve().parents[1] / "cluster" / "plugins"))
if sys.version_info >= (3, 14):  # argparse of Python 3.14 rejects Hydra 1.3's lazy help text
    argparse.ArgumentParser._check_help = lambda *_: None

resolvers.register()


def compose_config(overrides: Sequence[str] = (), config_name: str = "main") -> DictConfig:
    """The config of one job, as `python main.py *overrides` would give it.

    Raises `ConfigError` for unknown keys and options, naming alternatives, and for values of the
    wrong kind.
    """
    parsed = parse(overrides)
    if GlobalHydra.instance().is_initialized():
        raise RuntimeError("compose_config cannot be called inside a Hydra job: use its config")
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        groups = [override for override in parsed if is_group(override)]
        cfg = _compose(config_name, groups)
        for override in parsed:
            if override.key_or_group.endswith(f".{CLASS}"):
                raise ConfigError(
                    f"{override.key_or_group} cannot be set, because runs are identified by the "
                    "names of options: add an option to conf/ and choose it"
                )
            if override not in groups and _replaces(override):
                _check_kind(override, find_node(cfg, override.key_or_group))
        return cfg if len(groups) == len(parsed) else _compose(config_name, parsed)


def expand(overrides: Sequence[str]) -> list[str]:
    """Overrides, plus those of the experiment's sweep and of the chosen mode.

    The user's settings win: keys in `overrides` are not added.
    """
    overrides = [override.replace(MOTPE, TPE) for override in overrides]
    parsed = parse(overrides)
    chosen = {override.get_key_element().lstrip("+~") for override in parsed}
    cfg = compose_config(overrides)
    in_mode = cfg.modes.get(cfg.mode_name, {})
    swept = dict(cfg.sweep) | dict(in_mode.get("sweep", {}))
    fixed = {k: v for k, v in in_mode.get("overrides", {}).items() if k not in swept}
    # options chosen by the user are not altered by the mode
    for override in filter(is_group, parsed):
        stated, node = _stated_in(override), f"{_package(override)}."
        fixed = {
            key: value
            for key, value in fixed.items()
            if key not in stated and (_has(cfg, key) or not key.startswith(node))
        }
    added = [f"{k}={to_override_value(v)}" for k, v in fixed.items() if k not in chosen]
    added += [f"{key}={_values(values)}" for key, values in swept.items() if key not in chosen]
    compose_config([*added, *overrides])  # raises for unknown keys in the experiment's file
    return [*added, *overrides]


def values_of(key: str, overrides: Sequence[str]) -> list[object] | None:
    """The values a key is set to or swept over; None if it is not set, or drawn by a search."""
    found = None
    for override in parse(overrides):
        if override.get_key_element().lstrip("+") != key:
            continue
        if override.is_sweep_override():
            is_list = override.value_type == ValueType.SIMPLE_CHOICE_SWEEP
            found = list(override.sweep_iterator()) if is_list else None
        else:
            found = [override.value()]
    return found


def parse(overrides: Sequence[str]) -> list[Override]:
    """Overrides in Hydra's grammar; raises `ConfigError` for syntax errors."""
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ConfigError(f"settings are KEY=VALUE, without spaces: {error}") from error
    if endless := [o.input_line for o in parsed if o.is_range_sweep() and o.value().step == 0]:
        raise ConfigError(f"{endless[0]}: the step of a range cannot be 0")
    return parsed


def to_override_value(value: object) -> str:
    """A value as text in Hydra's override grammar that parses to this value, not to a sweep.

    Parameters
    ----------
    value : None, a bool, a number, text, or lists and dicts of these, also as parsed by Hydra. Text
        is quoted if it would parse as something else.
    """
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value)
    if isinstance(value, QuotedString):
        value = value.text
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value if _is_plain(value) else QuotedString(value, Quote.single).with_quotes()
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(to_override_value, value))}]"
    if isinstance(value, Mapping):
        items = (f"{key}:{to_override_value(below)}" for key, below in value.items())
        return f"{{{','.join(items)}}}"
    return str(value)


def _is_plain(text: str) -> bool:
    """Whether text parses as itself when unquoted."""
    return bool(PLAIN.fullmatch(text)) and text.lower() not in NO_TEXT


def _compose(config_name: str, overrides: list[Override]) -> DictConfig:
    try:
        return compose(config_name, _strings(_first_values(overrides)))
    except (HydraException, ValueError) as error:
        # drop Hydra's list of search paths
        said = str(error) or str(error.__cause__)  # for files that cannot be parsed
        raise ConfigError(" ".join(said.partition("Config search path")[0].split())) from error


def _first_values(overrides: list[Override]) -> list[Override]:
    """One job of a sweep: the first value of each swept key."""
    for override in overrides:
        if override.is_sweep_override() and not override.is_choice_sweep():
            continue  # keep the default
        if override.is_sweep_override():
            first = next(iter(override.sweep_iterator()))
            override.input_line = f"{override.get_key_element()}={to_override_value(first)}"
    return [o for o in overrides if not o.is_sweep_override() or o.is_choice_sweep()]


def _strings(overrides: list[Override]) -> list[str]:
    return [override.input_line for override in overrides]


def is_group(override: Override) -> bool:
    """Whether an override chooses an option of a group, instead of setting a value."""
    return (CONF_DIR / override.key_or_group.split("@")[0]).is_dir() or "@" in (
        override.get_key_element()
    )


def _package(override: Override) -> str:
    """The config key that a group choice sets."""
    return override.package or override.key_or_group


def _stated_in(override: Override) -> set[str]:
    """Keys of the config that are set by the file of a chosen option."""
    group = override.key_or_group.split("@")[0]
    (choice,) = _first_values([override])
    option = choice.input_line.split("=", 1)[1]
    file = CONF_DIR / group / f"{option}.yaml"
    if not file.is_file() or file.read_text(encoding="utf-8").startswith("# @package _global_"):
        return set()  # global configs can set keys anywhere
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        stated = OmegaConf.select(_compose(f"{group}/{option}", []), group.replace("/", "."))
    return {f"{_package(override)}.{key}" for key in _keys(OmegaConf.to_container(stated))}


def _keys(node: dict) -> list[str]:
    """The dotted keys of a nested dict."""
    keys = []
    for key, value in node.items():
        keys += (
            [key, *(f"{key}.{below}" for below in _keys(value))]
            if isinstance(value, dict)
            else [key]
        )
    return keys


def _has(cfg: DictConfig, key: str) -> bool:
    """Whether a config has a key, whatever its value."""
    node = cfg
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in node:
            return False
        node = node._get_node(part)
    return True


def _replaces(override: Override) -> bool:
    """Whether an override changes the value of an existing key of ours."""
    is_hydras = override.key_or_group.startswith("hydra")
    return not (is_hydras or override.is_add() or override.is_delete())


def _check_kind(override: Override, stated: Node) -> None:
    """Raise if an override's value has a different type from the one it replaces."""
    key = override.key_or_group
    for value in given(override):
        kind = expected_kind(key.rpartition(".")[2], stated, value)
        if kind is not None:
            is_short = not OmegaConf.is_dict(stated)
            example = f" ({to_override_value(stated._value())})" if is_short else ""
            found = repr(value) if isinstance(value, str) else to_override_value(value)
            hint = "; int(interval(...)) draws whole ones" if override.is_interval_sweep() else ""
            raise ConfigError(f"{key} is {kind}{example}, not {found}{hint}")


def given(override: Override) -> list[object]:
    """The values of an override: all values of a sweep, the ends of an interval."""
    value = override.value()
    if isinstance(value, IntervalSweep):
        return [value.start, value.end]
    if not override.is_sweep_override():
        return [value]
    return list(map(_unquoted, override.sweep_iterator()))


def _unquoted(value: object) -> object:
    if isinstance(value, list):
        return list(map(_unquoted, value))
    return value.text if isinstance(value, QuotedString) else value


def _values(values: object) -> str:
    """A list as a sweep over its values; text, such as `interval(0, 1)`, is a sweep already."""
    return values if isinstance(values, str) else ",".join(map(to_override_value, values))
