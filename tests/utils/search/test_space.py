"""Search spaces: distributions of swept settings, and the command lines of trials."""

import re

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from utils import search
from utils.cluster.sweep import check_command_line
from utils.configs.checks import ConfigError
from utils.configs.composing import compose_config, expand
from utils.configs.overrides import CONF_DIR, parse
from utils.search.space import Space

DISTRIBUTIONS = {
    "tag(log, interval(1e-8, 1))": FloatDistribution(1e-8, 1, log=True),
    "interval(0, 0.5)": FloatDistribution(0, 0.5),
    "int(interval(0.0, 5.0))": IntDistribution(0, 5),
    "int(tag(log, interval(16, 512)))": IntDistribution(16, 512, log=True),
    "choice(32, 64)": CategoricalDistribution([32, 64]),
    "a,null": CategoricalDistribution(["a", "null"]),
    "range(1, 4)": IntDistribution(1, 3),
    "range(0, 10, 3)": IntDistribution(0, 9, step=3),
    "range(0, 1, 0.25)": FloatDistribution(0, 0.75, step=0.25),
}
IMPOSSIBLE = [
    "interval(1, 1e-3)",
    "interval(0, inf)",
    "tag(log, interval(0, 1))",
    "tag(logg, interval(1, 2))",
    "tag(log, range(8, 64, 8))",
    "tag(log, choice(1, 2))",
    "range(32, 16, 4)",
    "range(1, 2, 0)",
]


def test_each_form_of_a_sweep_has_its_distribution():
    for text, expected in DISTRIBUTIONS.items():
        space = Space.of([f"key={text}", "other=1"])
        assert space.distributions == {"key": expected} and space.fixed == ("other=1",), text
    for text in IMPOSSIBLE:
        with pytest.raises(ConfigError, match=re.escape(f"key={text}")):
            Space.of([f"key={text}"])
    with pytest.raises(ConfigError, match=r"featurizer\.loss\.beta.*hypopt=optuna"):
        check_command_line(["featurizer.loss.beta=interval(0.1, 1)"])  # no search


def test_the_ranges_of_all_experiments_can_be_sampled():
    text = "".join(file.read_text() for file in (CONF_DIR / "experiment").rglob("*.yaml"))
    ranges = re.findall(r"^ +([^ :#]+): (\w+\(.*\))$", text, re.MULTILINE)
    assert len(ranges) > 50
    for key, drawn in ranges:
        Space.of([f"{key}={drawn}"])


def test_the_job_of_a_trial_holds_each_setting_once(tmp_path):
    overrides = expand(["experiment=STL10_rate_variation", f"paths.results={tmp_path}"])
    search.check(compose_config(overrides), overrides)
    space = Space.of(overrides)
    trial = optuna.create_study().ask(space.distributions)
    job = [override.split("=", 1)[0] for override in space.job(trial.params)]
    assert sorted(job) == sorted(override.split("=", 1)[0] for override in overrides)


def test_a_sampled_choice_has_the_value_that_was_written():
    written = ["null", "True", "'a, b'", "'16'", r"a\,b", "a b", "3x", "${s}", "[a,'b, c']"]
    for text in written:
        space = Space.of([f"key={text},other"])
        drawn = space.distributions["key"].choices[0]
        (override,) = parse(space.job({"key": drawn}))
        (expected,) = parse([f"key={text}"])
        if text != "null":  # which Hydra's choice() does not take
            assert Space.of([f"key=choice({text}, other)"]) == space
        assert not override.is_sweep_override() and override.value() == expected.value()
