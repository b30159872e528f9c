"""Search space: the distributions of the swept settings of a command line."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hydra.core.override_parser.types import Override
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from utils.configs.checks import ConfigError
from utils.configs.overrides import parse, to_override_value
from utils.runs.identity import is_execution_setting


@dataclass(frozen=True)
class Space:
    """A command line in which some settings are drawn.

    Attributes
    ----------
    fixed : overrides that all trials share.
    distributions : key -> distribution of the setting.
    """

    fixed: tuple[str, ...]
    distributions: dict[str, BaseDistribution]

    @classmethod
    def of(cls, overrides: Sequence[str]) -> "Space":
        """The space of a command line, as in "lr=tag(log, interval(1e-4, 1e-2))"."""
        parsed = parse(overrides)
        fixed = (o.input_line for o in parsed if not o.is_sweep_override())
        swept = {o.get_key_element(): distribution(o) for o in parsed if o.is_sweep_override()}
        return cls(tuple(fixed), swept)

    @property
    def definition(self) -> dict[str, str]:
        """What all trials of a study share: fixed settings that influence results, except the
        seed, and descriptions of the distributions."""
        fixed = (override.lstrip("+").partition("=")[::2] for override in self.fixed)
        fixed = {key: value for key, value in fixed if not _is_free(key)}
        return fixed | {key: describe(drawn) for key, drawn in self.distributions.items()}

    def job(self, params: Mapping[str, object]) -> tuple[str, ...]:
        """The overrides of the trial with these values."""
        drawn = (f"{key}={_text(params[key])}" for key in self.distributions)
        return (*self.fixed, *drawn)


def distribution(override: Override) -> BaseDistribution:
    """Distribution of a swept setting.

    - `choice(a, b)` and `a,b`: one of them. Values other than numbers and bools are kept as text
      in Hydra's grammar, with the necessary quotes.
    - `interval(a, b)`: a float between them, both included; `int(interval(1, 5))`: an integer.
      `tag(log, interval(a, b))`: uniform in the logarithm.
    - `range(a, b, step)`: as in a sweep, excluding b.

    Raises `ConfigError` for an empty range and for unsupported tags.
    """
    try:
        return _distribution(override)
    except ValueError as error:
        raise ConfigError(
            f"{override.input_line}: {error}; expected choice(a, b, ...), range(start, stop, step) "
            "that is not empty, interval(low, high) or, with low > 0, tag(log, interval(low, high))"
        ) from error


def _distribution(override: Override) -> BaseDistribution:
    sweep = override.value()
    if wrong := sweep.tags - ({"log"} if override.is_interval_sweep() else set()):
        raise ValueError(f"it cannot have the tag {', '.join(sorted(wrong))}")
    if override.is_choice_sweep():
        values = override.sweep_iterator()
        return CategoricalDistribution(
            [v if isinstance(v, (int, float)) else to_override_value(v) for v in values]
        )
    if override.is_range_sweep():
        values = list(override.sweep_iterator())
        ends, step = (min(values), max(values)), abs(sweep.step)
        return _numbers(ends)(*ends, step=step)
    ends = (sweep.start, sweep.end)
    if not all(map(math.isfinite, ends)):
        raise ValueError("its ends must be finite")
    return _numbers(ends)(*ends, log="log" in sweep.tags)


def describe(distribution: BaseDistribution) -> str:
    """The part of a distribution that is fixed in a study: all but the ends of intervals."""
    if isinstance(distribution, CategoricalDistribution):
        return f"choice({', '.join(map(_text, distribution.choices))})"
    kind = "an interval of " + ("int" if isinstance(distribution, IntDistribution) else "float")
    return f"{kind}, log" if distribution.log else kind


def _is_free(key: str) -> bool:
    """Whether a setting may differ between trials of a study: seeds, and how jobs run."""
    return key in ("seed", "seed_pred") or is_execution_setting(key.replace("/", "."))


def _numbers(ends: tuple[float, float]) -> type[IntDistribution] | type[FloatDistribution]:
    return IntDistribution if all(isinstance(end, int) for end in ends) else FloatDistribution


def _text(drawn: object) -> str:
    """A drawn value in Hydra's grammar, in which text already is."""
    return drawn if isinstance(drawn, str) else to_override_value(drawn)
