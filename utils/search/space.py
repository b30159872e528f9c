"""The search space: distributions of the settings that a command line sweeps over."""

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
    """A command line in which some settings are sampled."""

    fixed: tuple[str, ...]  # overrides that all trials share
    distributions: dict[str, BaseDistribution]  # keyed by setting

    @classmethod
    def of(cls, overrides: Sequence[str]) -> "Space":
        """Parse the overrides of a command line, such as "lr=tag(log, interval(1e-4, 1e-2))"."""
        parsed = parse(overrides)
        fixed = (o.input_line for o in parsed if not o.is_sweep_override())
        swept = {o.get_key_element(): distribution(o) for o in parsed if o.is_sweep_override()}
        return cls(tuple(fixed), swept)

    @property
    def definition(self) -> dict[str, str]:
        """What all trials of a study share: the fixed settings that affect results, except seeds,
        and descriptions of the distributions."""
        fixed = (override.lstrip("+").partition("=")[::2] for override in self.fixed)
        fixed = {key: value for key, value in fixed if not _is_free(key)}
        return fixed | {key: describe(drawn) for key, drawn in self.distributions.items()}

    def job(self, params: Mapping[str, object]) -> tuple[str, ...]:
        """Return the overrides for the trial with these parameters."""
        drawn = (f"{key}={_text(params[key])}" for key in self.distributions)
        return (*self.fixed, *drawn)


def distribution(override: Override) -> BaseDistribution:
    """Return the distribution of a swept setting.

    - `choice(a, b)` and `a,b`: one of the values. Values other than numbers and booleans are kept
      as text in Hydra's grammar, quoted where necessary.
    - `interval(a, b)`: a float in [a, b]; `int(interval(1, 5))`: an integer in [1, 5].
      `tag(log, interval(a, b))`: log-uniform.
    - `range(a, b, step)`: one of the values in Hydra's sweep, excluding b.

    Raises `ConfigError` for invalid ranges and intervals and for unsupported tags.
    """
    try:
        return _distribution(override)
    except ValueError as error:
        raise ConfigError(
            f"{override.input_line}: {error}; expected choice(a, b, ...), a non-empty "
            "range(start, stop, step), interval(low, high) or, with low > 0, "
            "tag(log, interval(low, high))"
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
    """Describe what must not change in a distribution; numeric bounds and steps may change."""
    if isinstance(distribution, CategoricalDistribution):
        return f"choice({', '.join(map(_text, distribution.choices))})"
    kind = "an interval of " + ("int" if isinstance(distribution, IntDistribution) else "float")
    return f"{kind}, log" if distribution.log else kind


def _is_free(key: str) -> bool:
    """Whether a setting may differ between trials of a study: a seed or an execution setting."""
    return key in ("seed", "seed_pred") or is_execution_setting(key.replace("/", "."))


def _numbers(ends: tuple[float, float]) -> type[IntDistribution] | type[FloatDistribution]:
    return IntDistribution if all(isinstance(end, int) for end in ends) else FloatDistribution


def _text(drawn: object) -> str:
    """A sampled value in Hydra's grammar; strings already follow it."""
    return drawn if isinstance(drawn, str) else to_override_value(drawn)
