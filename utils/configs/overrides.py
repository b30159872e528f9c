"""Parses command-line overrides and formats their values in Hydra's grammar."""

import contextlib
import functools
import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    Glob,
    IntervalSweep,
    Override,
    Quote,
    QuotedString,
    ValueType,
)
from hydra.errors import HydraException
from omegaconf import OmegaConf

from utils.configs.checks import NAMES, WEIGHT_SETTINGS, ConfigError

CONF_DIR = Path(__file__).resolve().parents[2] / "conf"
# Text that needs no quotes in Hydra's grammar, except the words in NO_TEXT.
PLAIN = re.compile(r"[A-Za-z_][\w./-]*", re.ASCII)
NO_TEXT = {"null", "true", "false", "nan", "inf"}
# Keys whose values are taken literally; in Hydra's grammar, `1_2` is the number 12.
TEXT_KEY = re.compile(
    r"paths\.\w+|job_id|goal|queue|wandb_\w+|hypopt\.study_name|finetune\.init|export\.encoder|"
    + "|".join(map(re.escape, WEIGHT_SETTINGS))
)
# characters that Hydra does not escape when it passes values to jobs
UNESCAPED = {*string.ascii_letters, *string.digits, *"_-./"}
NAME_KEYS = {"experiment", *NAMES}  # these may be swept


def parse(overrides: Sequence[str]) -> list[Override]:
    """Parse overrides in Hydra's grammar, except that paths, names and text are taken literally.

    Raises `ConfigError` for syntax errors, and for infinite or empty sweeps.
    """
    parsed = _parse([_as_typed(override) for override in overrides])
    for override in parsed:
        if override.is_range_sweep() and override.value().step == 0:
            raise ConfigError(f"{override.input_line}: the step of a range cannot be 0")
        if isinstance(override.value(), Glob) and not given(override):
            raise ConfigError(f"{override.input_line} matches none of the group's options")
    return parsed


def is_group(override: Override) -> bool:
    """Whether an override chooses an option of a group instead of setting a value."""
    key = override.get_key_element()
    return "@" in key or (CONF_DIR / override.key_or_group).is_dir()


def given(override: Override) -> list[object]:
    """Return the values of an override: all values of a sweep, or the bounds of an interval."""
    value = override.value()
    if isinstance(value, IntervalSweep):
        return [value.start, value.end]
    if not override.is_sweep_override():
        return [value]
    return list(map(Override._convert_value, override.sweep_iterator()))


def values_of(key: str, overrides: Sequence[str]) -> list[object] | None:
    """The values that a key is set to, or swept over as `a,b`; None if it is unset or searched."""
    found = [o for o in parse(overrides) if o.get_key_element().lstrip("+") == key]
    if not found or found[-1].value_type not in (ValueType.ELEMENT, ValueType.SIMPLE_CHOICE_SWEEP):
        return None
    return given(found[-1])


def to_override_value(value: object) -> str:
    """Format a value in Hydra's override grammar so that it parses to this value, not to a sweep.

    The value is None, a bool, a number, text, or a list or dict of these, as Python objects or as
    parsed by Hydra. Text is quoted if it would parse as something else.
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
        is_plain = PLAIN.fullmatch(value) and value.lower() not in NO_TEXT
        return value if is_plain else _in_quotes(value)
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(to_override_value, value))}]"
    if isinstance(value, Mapping):
        items = (f"{key}:{to_override_value(below)}" for key, below in value.items())
        return f"{{{','.join(items)}}}"
    return str(value)


@functools.cache
def _parser() -> OverridesParser:
    # glob(...) needs the loader
    return OverridesParser.create(ConfigLoaderImpl(create_config_search_path(str(CONF_DIR))))


def _parse(overrides: list[str]) -> list[Override]:
    try:
        return _parser().parse_overrides(overrides)
    except HydraException as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"settings are KEY=VALUE, without spaces: {reason}") from error


def _as_typed(override: str) -> str:
    """Quote the value of an override if it is a path or name that Hydra's grammar would change."""
    key, equals, text = override.partition("=")
    name = key.lstrip("+")
    if equals and TEXT_KEY.fullmatch(name) and text != "null":
        return f"{key}={_quoted(text, str)}"
    if equals and name in NAME_KEYS and not set(text) & set("'\"("):  # not quoted, no choice(...)
        return f"{key}={','.join(_quoted(part, str, int, float) for part in text.split(','))}"
    return override


def _quoted(text: str, *kinds: type) -> str:
    """Quote text, unless it is quoted or parses to a value of one of `kinds` with this text."""
    with contextlib.suppress(ConfigError):
        value = _parse([f"x={text}"])[0]._value
        is_same = type(value) in kinds and str(value) == text and set(text) <= UNESCAPED
        if is_same or isinstance(value, QuotedString):
            return text
    return _in_quotes(text)


def _in_quotes(text: str) -> str:
    return QuotedString(text, Quote.single).with_quotes()
