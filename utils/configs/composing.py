"""Composes configs from command lines, with the sweeps and modes of experiments."""

import argparse
import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.nodes import Node

from utils.configs import resolvers
from utils.configs.checks import (
    CLASS,
    ConfigError,
    expand_paths,
    expected_kind,
    find_node,
    list_texts,
)
from utils.configs.overrides import CONF_DIR, given, is_group, parse, to_override_value

# Hydra discovers launchers and sweepers only in a package named `hydra_plugins`.
sys.path.append(str(Path(__file__).resolve().parents[1] / "cluster" / "plugins"))
if sys.version_info >= (3, 14):  # Python 3.14's argparse rejects Hydra 1.3's lazy help text
    argparse.ArgumentParser._check_help = lambda *_: None

resolvers.register()

# Nodes to which the file of an experiment may add keys. It may also add keys to any `kwargs`,
# because classes reject unknown arguments.
OPEN = {"aggregate", "experiment", "hydra", "modes", "per_distortion", "slurm", "sweep"}
OPEN |= {"trainer", "trainer_pred"}  # Lightning's trainer rejects unknown options


def compose_config(overrides: Sequence[str] = (), config_name: str = "main") -> DictConfig:
    """Compose the config of one job, as `python main.py *overrides` does.

    Raises `ConfigError` for unknown keys and options, naming alternatives, and for values of the
    wrong kind.
    """
    parsed = parse(overrides)
    if GlobalHydra.instance().is_initialized():
        raise RuntimeError("compose_config cannot be called in a Hydra job: use the job's config")
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        for override in parsed:
            _check_form(override)
        choices = [o for o in parsed if is_group(o) or o.key_or_group.startswith("hydra")]
        cfg = _compose(config_name, choices)
    values = [override for override in parsed if override not in choices]
    for override in values:
        if not (override.is_add() or override.is_delete()):
            _check_kind(override, find_node(cfg, override.key_or_group))
    set_values(cfg, parse(_first_values(values)))
    expand_paths(cfg)
    list_texts(cfg)
    return cfg


def set_values(cfg: DictConfig, overrides: list[Override]) -> None:
    """Set, add or remove keys of a config; raise `ConfigError` if that is impossible."""
    with _errors_in_one_line():
        ConfigLoaderImpl._apply_overrides_to_config(overrides, cfg)


def expand(overrides: Sequence[str]) -> list[str]:
    """Add the overrides of the experiment's sweep and of the chosen mode.

    The user's settings take precedence: keys that `overrides` sets are not added.
    """
    parsed = parse(overrides)
    # the last value of a repeated key counts, even if an earlier one is a sweep
    parsed = list({override.get_key_element(): override for override in parsed}.values())
    overrides = [override.input_line for override in parsed]
    chosen = {override.get_key_element().lstrip("+~") for override in parsed}
    cfg = compose_config(overrides)
    with _errors_in_one_line():  # errors in references
        in_mode = cfg.modes.get(cfg.mode_name, {})
        swept = dict(cfg.sweep) | dict(in_mode.get("sweep", {}))
        fixed = {k: v for k, v in in_mode.get("overrides", {}).items() if k not in swept}
    # the mode does not alter options that the user chose
    for override in filter(is_group, parsed):
        node, option = f"{override.package or override.key_or_group}.", _option(override)
        fixed = {
            key: value
            for key, value in fixed.items()
            if not key.startswith(node)
            or (_has(cfg, key) and not _has(option, key.removeprefix(node)))
        }
    added = [f"{k}={to_override_value(v)}" for k, v in fixed.items() if k not in chosen]
    added += [f"{key}={_values(values)}" for key, values in swept.items() if key not in chosen]
    compose_config([*added, *overrides])  # raises for unknown keys in the experiment's file
    return [*added, *overrides]


def check_experiment(overrides: Sequence[str]) -> None:
    """Raise `ConfigError` if the experiment's file sets an unknown key or the wrong kind of value.

    Nothing would read a key that no other file has. `OPEN` lists exceptions.
    """
    chosen = [o for o in parse(overrides) if is_group(o) and o.key_or_group == "experiment"]
    if not chosen:
        return
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"), _errors_in_one_line():
        # leave out other choices: they may lack keys that the experiment sets for its own choices
        cfg = compose("main", _first_values(chosen), return_hydra_config=True)
        options = dict(cfg.hydra.runtime.choices) | {"experiment": "none"}
        same = [f"{group}={name}" for group, name in options.items() if "hydra/" not in group]
        others = compose("main", same)
    settings = {k: v for k, v in OmegaConf.to_container(cfg).items() if k not in OPEN}
    for prefix, name, value in _changed(settings, OmegaConf.to_container(others)):
        key = f"{prefix}{name}"
        try:
            if "@" in key or (isinstance(value, str) and (CONF_DIR / key).is_dir()):
                raise ConfigError(f"choose an option in defaults: `- override /{key}: {value}`")
            kind = expected_kind(name, find_node(others, key), value)
            if kind is not None:
                raise ConfigError(f"{key} is {kind}, not {value!r}")
            if "." in name:
                raise ConfigError(f"'{key}' is one key with dots: nest its parts")
        except ConfigError as error:
            name = cfg.hydra.runtime.choices.experiment
            raise ConfigError(f"conf/experiment/{name}.yaml: {error}") from error


def _changed(new: Mapping, old: Mapping, prefix: str = "") -> Iterator[tuple[str, str, object]]:
    """Yield the prefix, name and value of each key of `new`, also in nested mappings, that is
    missing or different in `old`; keys in `kwargs` are skipped."""
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(old.get(key), dict):
            if key != "kwargs":
                yield from _changed(value, old[key], f"{prefix}{key}.")
        elif key not in old or value != old[key]:
            yield prefix, str(key), value


def _compose(config_name: str, overrides: list[Override]) -> DictConfig:
    with _errors_in_one_line():
        return compose(config_name, _first_values(overrides))


@contextlib.contextmanager
def _errors_in_one_line() -> Iterator[None]:
    try:
        yield
    except (HydraException, OmegaConfBaseException, ValueError, yaml.YAMLError) as error:
        # drop Hydra's list of search paths
        said = str(error) or str(error.__cause__)  # for files that cannot be parsed
        raise ConfigError(" ".join(said.partition("Config search path")[0].split())) from error


def _first_values(overrides: list[Override]) -> list[str]:
    """One job of a sweep: the first value of each choice; defaults for ranges and intervals."""
    lines = []
    for override in overrides:
        if not override.is_sweep_override():
            lines.append(override.input_line)
        elif override.is_choice_sweep():
            first = to_override_value(given(override)[0])
            lines.append(f"{override.get_key_element()}={first}")
    return lines


def _option(override: Override) -> DictConfig:
    """The config of a chosen option; empty for a global one, which can set any key."""
    group = override.key_or_group
    (choice,) = _first_values([override])
    option = choice.partition("=")[2]
    file = CONF_DIR / group / f"{option}.yaml"
    if not file.is_file() or file.read_text(encoding="utf-8").startswith("# @package _global_"):
        return OmegaConf.create()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return OmegaConf.select(_compose(f"{group}/{option}", []), group.replace("/", "."))


def _has(cfg: DictConfig, key: str) -> bool:
    try:
        find_node(cfg, key)
    except ConfigError:
        return False
    return True


def _check_form(override: Override) -> None:
    """Raise ConfigError for valid Hydra overrides that are not supported here."""
    key, line = override.get_key_element().lstrip("+~"), override.input_line
    if key.endswith(f".{CLASS}"):
        raise ConfigError(
            f"{key} cannot be set, because runs are identified by the names of options: add an "
            "option to conf/ and choose it"
        )
    if override.is_delete() and ".kwargs." not in key and not key.startswith("sweep."):
        raise ConfigError(f"{line}: {key} cannot be removed: choose another value, {key}=...")
    if is_group(override) and "@" not in key and key != override.get_key_element():
        raise ConfigError(f"{line}: choose an option without '+': {line.lstrip('+')}")


def _check_kind(override: Override, stated: Node) -> None:
    """Raise ConfigError if an override's value is not of the same kind as the one it replaces."""
    key = override.key_or_group
    for value in given(override):
        kind = expected_kind(key.rpartition(".")[2], stated, value)
        if kind is not None:
            is_short = not OmegaConf.is_dict(stated)
            example = f" ({to_override_value(stated._value())})" if is_short else ""
            found = repr(value) if isinstance(value, str) else to_override_value(value)
            hint = "; int(interval(...)) draws integers" if override.is_interval_sweep() else ""
            raise ConfigError(f"{key} is {kind}{example}, not {found}{hint}")


def _values(values: object) -> str:
    """Format a list as a sweep over its values; text, such as `interval(0, 1)`, is already one."""
    return values if isinstance(values, str) else ",".join(map(to_override_value, values))
