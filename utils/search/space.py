"""The space of a search: which distribution each swept setting of a command line is drawn from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ParsedElementType
from hydra_plugins.hydra_optuna_sweeper._impl import create_optuna_distribution_from_override
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    DiscreteUniformDistribution,
    IntLogUniformDistribution,
    IntUniformDistribution,
    LogUniformDistribution,
)

from utils.composing import to_override_value


@dataclass(frozen=True)
class Space:
    """A command line in which some settings are drawn.

    Attributes
    ----------
    fixed : overrides that all trials share.
    distributions : key -> what the setting is drawn from.
    """

    fixed: tuple[str, ...]
    distributions: dict[str, BaseDistribution]

    @classmethod
    def of(cls, overrides: Sequence[str]) -> "Space":
        """The space of a command line, as in "lr=tag(log, interval(1e-4, 1e-2))"."""
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        fixed = (o.input_line for o in parsed if not o.is_sweep_override())
        swept = {o.get_key_element(): distribution(o) for o in parsed if o.is_sweep_override()}
        return cls(tuple(fixed), swept)

    def job(self, params: Mapping[str, object]) -> tuple[str, ...]:
        """The overrides of the trial with these values."""
        drawn = (f"{key}={_text(params[key])}" for key in self.distributions)
        return (*self.fixed, *drawn)


def distribution(override: Override) -> BaseDistribution:
    """What a swept setting is drawn from.

    - `choice(a, b)` and `a,b`: one of them. What is neither a number nor a bool is kept as text of
      Hydra's grammar, with the quotes that it needs.
    - `interval(a, b)`: between them, both included; integers if both ends are integers, as in
      `int(interval(1, 5))`. `tag(log, interval(a, b))`: its logarithm is uniform.
    - `range(a, b, step)`: as in a sweep, where b is not included.
    """
    if override.is_choice_sweep():
        return CategoricalDistribution([_choice(value) for value in override.sweep_iterator()])
    if not override.is_range_sweep():
        return create_optuna_distribution_from_override(override)
    values = list(override.sweep_iterator())  # the plugin would include b
    low, high, step = min(values), max(values), abs(override.value().step)
    if all(isinstance(value, int) for value in values):
        return IntUniformDistribution(low, high, step=int(step))
    return DiscreteUniformDistribution(low, high, q=step)


def in_words(distribution: BaseDistribution) -> str:
    """A distribution as it is written on the command line."""
    if isinstance(distribution, CategoricalDistribution):
        return f"choice({', '.join(map(_text, distribution.choices))})"
    text = f"interval({distribution.low}, {distribution.high})"
    if isinstance(distribution, DiscreteUniformDistribution):
        return f"{text} in steps of {distribution.q}"
    if isinstance(distribution, IntUniformDistribution) and distribution.step != 1:
        return f"{text} in steps of {distribution.step}"
    return f"tag(log, {text})" if is_log(distribution) else text


def is_log(distribution: BaseDistribution) -> bool:
    """Whether it is the logarithm that is uniform."""
    return isinstance(distribution, (LogUniformDistribution, IntLogUniformDistribution))


def is_comparable(old: BaseDistribution, new: BaseDistribution) -> bool:
    """Whether trials of both can be in one study: Optuna lets intervals move, nothing else."""
    if type(old) is not type(new):
        return False
    return not isinstance(old, CategoricalDistribution) or old.choices == new.choices


def _choice(value: ParsedElementType) -> str | int | float | bool:
    """A choice as Optuna can store it."""
    return value if isinstance(value, (int, float)) else to_override_value(value)


def _text(drawn: object) -> str:
    """What was drawn in Hydra's grammar, which text is in already."""
    return drawn if isinstance(drawn, str) else to_override_value(drawn)
