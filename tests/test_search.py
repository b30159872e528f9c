"""Searches: what is drawn, and that studies survive failures, kills and changes of mind."""

import json
import math
import multiprocessing
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
import sqlalchemy
import yaml
from hydra.core.utils import JobReturn, JobStatus
from hydra_plugins.study_sweeper import StudySweeper
from optuna.distributions import (
    CategoricalDistribution,
    DiscreteUniformDistribution,
    IntLogUniformDistribution,
    IntUniformDistribution,
    LogUniformDistribution,
    UniformDistribution,
)
from optuna.trial import FrozenTrial, TrialState
from PIL import Image
from tiny import DIGITS, call, main_command

from lossyless.tracking import NonFiniteLossError
from utils import search, tables
from utils.aggregation.experiment import Experiment
from utils.aggregation.search import plot_optuna_hypopt, trials_table
from utils.composing import (
    CONF_DIR,
    ConfigError,
    compose_config,
    expand,
    parse,
    to_override_value,
)
from utils.identity import experiment_folder
from utils.launchers import JobError
from utils.search import database
from utils.search.importance import importances
from utils.search.loop import run_trials, summary
from utils.search.space import Space, in_words

RANDOM = {"_target_": "optuna.samplers.RandomSampler", "seed": 3}
TPE = {"_target_": "optuna.samplers.TPESampler", "seed": 3}
NSGAII = {"_target_": "optuna.samplers.NSGAIISampler", "seed": 3, "population_size": 4}
X, LOG_Y = "x=interval(-1.0, 1)", "y=tag(log, interval(1e-4, 1))"
Params = dict[str, float]


@pytest.fixture(autouse=True, scope="module")
def fast_data_bases():
    """Without waiting for the disk at every write."""

    def relax(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    sqlalchemy.event.listen(sqlalchemy.engine.Engine, "connect", relax)
    yield
    sqlalchemy.event.remove(sqlalchemy.engine.Engine, "connect", relax)


class FakeLauncher:
    """Runs a function of a trial's settings instead of a job."""

    def __init__(self, function: Callable[[Params], object]):
        self.function = function
        self.batches: list[list[Params]] = []

    def launch(self, jobs: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        assert initial_job_idx == len(self.seen)
        self.batches.append([self._settings(job) for job in jobs])
        return [self._run(settings) for settings in self.batches[-1]]

    @property
    def seen(self) -> list[Params]:
        return [settings for batch in self.batches for settings in batch]

    def _run(self, settings: Params) -> JobReturn:
        try:
            return JobReturn(_return_value=self.function(settings), status=JobStatus.COMPLETED)
        except (ArithmeticError, RuntimeError, ValueError) as error:
            return JobReturn(_return_value=error, status=JobStatus.FAILED)

    @staticmethod
    def _settings(job: Sequence[str]) -> Params:
        pairs = (override.split("=", 1) for override in job if not override.startswith("fixed"))
        return {key: float(value) for key, value in pairs}


def square(settings: Params) -> float:
    return settings["x"] ** 2


def conflict(settings: Params) -> tuple[float, float]:
    return settings["x"] ** 2, (settings["x"] - 1) ** 2


def fails_below_zero(settings: Params) -> float:
    if settings["x"] < 0:
        raise ValueError("x is negative")
    return settings["x"]


def run(
    folder: Path,
    function: Callable[[Params], object] = square,
    n_trials: int = 5,
    *,
    space: Sequence[str] = (X, LOG_Y),
    objectives: Sequence[str] = ("val/pred/err",),
    n_parallel: int = 2,
    **settings: object,
) -> FakeLauncher:
    """One call of a search in `folder`."""
    launcher = FakeLauncher(function)
    defaults = {
        "name": "study",
        "directions": ["minimize"] * len(objectives),
        "retry_failed": True,
        "sampler": RANDOM,
    }
    run_trials(
        ["fixed=1", *space],
        launcher=launcher,
        sweep_dir=folder / "sweep",
        n_parallel=n_parallel,
        file=folder / database.FILE,
        objectives=list(objectives),
        n_trials=n_trials,
        **(defaults | settings),
    )
    return launcher


def load(folder: Path, name: str = "study") -> optuna.Study:
    return database.load(folder / database.FILE, name)


def states(folder: Path) -> list[str]:
    return [trial.state.name for trial in load(folder).trials]


# --- spaces


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tag(log, interval(1e-8, 1))", LogUniformDistribution(1e-8, 1)),
        ("interval(0, 0.5)", UniformDistribution(0, 0.5)),
        ("int(interval(0.0, 5.0))", IntUniformDistribution(0, 5)),
        ("tag(log, int(interval(16, 512)))", IntLogUniformDistribution(16, 512)),
        ("int(tag(log, interval(16, 512)))", IntLogUniformDistribution(16, 512)),
        ("choice(32, 64)", CategoricalDistribution([32, 64])),
        ("a,null", CategoricalDistribution(["a", "null"])),
        ("cosine,expdecay100", CategoricalDistribution(["cosine", "expdecay100"])),
        ("range(1, 4)", IntUniformDistribution(1, 3)),
        ("range(0, 10, 3)", IntUniformDistribution(0, 9, step=3)),
        ("range(0, 1, 0.25)", DiscreteUniformDistribution(0, 0.75, q=0.25)),
    ],
)
def test_each_form_of_a_sweep_is_drawn_from_its_distribution(text, expected):
    space = Space.of([f"key={text}", "other=1"])
    assert space.distributions == {"key": expected}
    assert space.fixed == ("other=1",)


@pytest.mark.parametrize(
    "text", ["tag(log, interval(0.01, 1.0))", "interval(0.5, 1.0)", "choice(1, b)"]
)
def test_a_distribution_in_words_is_what_one_writes(text):
    (distribution,) = Space.of([f"key={text}"]).distributions.values()
    assert in_words(distribution) == text


@pytest.mark.parametrize(
    "file", sorted((CONF_DIR / "experiment").rglob("*.yaml")), ids=lambda file: file.stem
)
def test_every_range_of_the_experiments_is_drawn_from_what_it_says(file):
    content = yaml.safe_load(file.read_text())
    of_modes = [mode.get("sweep", {}) for mode in (content.get("modes") or {}).values()]
    for sweep in [content.get("sweep") or {}, *of_modes]:
        for key, text in sweep.items():
            if not isinstance(text, str) or "$" in text:
                continue  # a list, of an ordinary sweep
            (drawn,) = Space.of([f"{key}={text}"]).distributions.values()
            assert isinstance(drawn, LogUniformDistribution) == text.startswith("tag(log")
            assert isinstance(drawn, CategoricalDistribution) == text.startswith("choice(")


def test_the_job_of_a_trial_holds_each_setting_once(tmp_path):
    overrides = expand(["experiment=STL10_rate_variation", f"paths.results={tmp_path}"])
    search.check(compose_config(overrides), overrides)
    space = Space.of(overrides)
    trial = optuna.create_study().ask(space.distributions)
    job = [override.split("=", 1)[0] for override in space.job(trial.params)]
    assert sorted(job) == sorted(override.split("=", 1)[0] for override in overrides)


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, 3, -1.5, 1e-8, "a", "cosine_2", "a/b.c", "16", "null", "true", "nan"),
        *("", " ", "a, b", "it's", 'say "no"', "'a'", "a=b", "(a)", "[a]", "x\\", "${a}", "1e-3"),
        *([], [1, "a, b", None, [True]], {}, {"a": 1, "b": ["c, d", {"e": "it's"}]}),
    ],
    ids=repr,
)
def test_a_value_is_written_such_that_hydra_reads_it(value):
    (override,) = parse([f"key={to_override_value(value)}"])
    assert not override.is_sweep_override()
    assert override.value() == value and type(override.value()) is type(value)
    (override,) = parse([f"key={to_override_value(value)},b"])
    first, _ = override.sweep_string_iterator()
    (override,) = parse([f"key={first}"])
    assert override.value() == value and type(override.value()) is type(value)


@pytest.mark.parametrize(
    "text", ["null", "True", "'a, b'", "'16'", r"a\,b", "a b", "3x", "${s}", "[a,'b, c']"]
)
def test_a_drawn_choice_is_what_one_wrote(text):
    space = Space.of([f"key={text},other"])
    drawn = space.distributions["key"].choices[0]
    (override,) = parse(space.job({"key": drawn}))
    (expected,) = parse([f"key={text}"])
    if text != "null":  # which Hydra's choice() does not take
        assert Space.of([f"key=choice({text}, other)"]) == space
    assert not override.is_sweep_override() and override.value() == expected.value()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'a, b',c", "a, b"),
        ("choice('16', c)", "16"),
        ("null,c", None),
        ("[x,'y, z'],c", ["x", "y, z"]),
    ],
)
def test_a_sweep_composes_with_its_first_value(text, expected):
    cfg = compose_config([f"monitor_return={text}"])
    assert cfg.monitor_return == expected


# --- totals


def test_n_trials_is_the_total_of_a_study(tmp_path, capsys):
    assert len(run(tmp_path, n_trials=5).seen) == 5
    assert len(run(tmp_path, n_trials=5).seen) == 0
    assert "Nothing to run: the study has 5 trials" in capsys.readouterr().out
    assert len(run(tmp_path, n_trials=7).seen) == 2
    assert states(tmp_path) == ["COMPLETE"] * 7
    assert len({trial.params["x"] for trial in load(tmp_path).trials}) == 7  # none is drawn again


@pytest.mark.parametrize("sampler", [RANDOM, TPE], ids=["random", "tpe"])
def test_a_search_in_two_calls_is_the_search_in_one_call(sampler, tmp_path):
    (tmp_path / "once").mkdir()
    (tmp_path / "twice").mkdir()
    once = run(tmp_path / "once", n_trials=14, n_parallel=1, sampler=sampler).seen
    twice = [
        *run(tmp_path / "twice", n_trials=9, n_parallel=1, sampler=sampler).seen,
        *run(tmp_path / "twice", n_trials=14, n_parallel=1, sampler=sampler).seen,
    ]
    assert twice == once


def test_batches_are_as_large_as_asked_for_and_studies_are_apart(tmp_path):
    assert list(map(len, run(tmp_path, n_trials=7, n_parallel=3).batches)) == [3, 3, 1]
    assert len(run(tmp_path, n_trials=2, name="other").seen) == 2
    assert database.names(tmp_path / database.FILE) == ["study", "other"]


def test_a_trial_stores_what_it_ran(tmp_path):
    folder = tmp_path / "sweep/0"
    folder.mkdir(parents=True)
    trace = {"state": "done", "started": "2021-06-01T10:00:00+00:00"}
    trace |= {
        "finished": "2021-06-01T10:00:12.5+00:00",
        "runs": {"featurizer": "a", "predictor": "b"},
    }
    (folder / "job.json").write_text(json.dumps(trace))
    run(tmp_path, n_trials=1)
    (trial,) = load(tmp_path).trials
    expected = ["fixed=1", *(f"{key}={value}" for key, value in trial.params.items())]
    assert trial.user_attrs["overrides"] == expected
    assert trial.user_attrs["seconds"] == 12.5 and trial.user_attrs["run"] == "b"
    assert trial.value == trial.params["x"] ** 2


# --- failures


def test_a_failed_trial_is_recorded_and_the_others_go_on(tmp_path):
    run(tmp_path, fails_below_zero, n_trials=8, retry_failed=False)
    trials = load(tmp_path).trials
    assert len(trials) == 8
    for trial in trials:
        assert (trial.state == TrialState.FAIL) == (trial.params["x"] < 0)
        assert trial.user_attrs.get("error") in (None, "ValueError: x is negative")
    assert 0 < sum(trial.state == TrialState.FAIL for trial in trials) < 8
    again = run(tmp_path, fails_below_zero, n_trials=8, retry_failed=False)
    assert not again.seen  # failed ones count


def test_failed_trials_are_repeated_once_by_each_further_call(tmp_path):
    first = run(tmp_path, fails_below_zero, n_trials=8).seen
    failed = [settings for settings in first if settings["x"] < 0]
    for _ in range(2):
        assert run(tmp_path, fails_below_zero, n_trials=8).seen == failed
    assert run(tmp_path, square, n_trials=9).seen[: len(failed)] == failed  # repaired
    study = load(tmp_path)
    assert len(database.counted(study.trials)) == 9
    assert {trial.state for trial in database.counted(study.trials)} == {TrialState.COMPLETE}
    assert not run(tmp_path, square, n_trials=9).seen


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_objective_that_is_not_finite_is_a_failure_that_stays(value, tmp_path):
    run(tmp_path, lambda _: value, n_trials=3)
    for trial in load(tmp_path).trials:
        assert trial.state == TrialState.FAIL
        assert trial.user_attrs["error"] == f"val/pred/err is {value}"
    assert not run(tmp_path, n_trials=3).seen


@pytest.mark.parametrize("is_submitted", [False, True], ids=["in workers", "in jobs"])
def test_a_training_that_diverges_is_never_repeated(is_submitted, tmp_path):
    """Its error comes as it was raised, or of a submitted job by way of the trace."""
    message = "training stopped at step 3: loss=nan"

    def diverge(_: Params) -> float:
        if is_submitted:
            folder = tmp_path / "sweep/0"
            folder.mkdir(parents=True, exist_ok=True)
            trace = {"state": "failed", "error": f"NonFiniteLossError: {message}"}
            (folder / "job.json").write_text(json.dumps(trace))
            raise JobError(f"job 0 (12_0): NonFiniteLossError: {message}")
        raise NonFiniteLossError(message)

    assert len(run(tmp_path, diverge, n_trials=1).seen) == 1
    (trial,) = load(tmp_path).trials
    assert trial.state == TrialState.FAIL and message in trial.user_attrs["error"]
    assert not run(tmp_path, diverge, n_trials=1).seen


@pytest.mark.parametrize("returned", [None, "text", (1.0, 2.0)])
def test_a_job_that_returns_something_else_has_failed(returned, tmp_path):
    run(tmp_path, lambda _: returned, n_trials=1)
    assert states(tmp_path) == ["FAIL"]


# --- kills


class Killed(BaseException):
    """As Ctrl-C or SIGTERM."""


def test_trials_that_lost_their_search_are_taken_up_first(tmp_path):
    def end(settings: Params) -> float:
        raise Killed

    with pytest.raises(Killed):
        run(tmp_path, end, n_trials=5)
    assert states(tmp_path) == ["RUNNING"] * 2
    lost = [trial.params for trial in load(tmp_path).trials]
    launcher = run(tmp_path, n_trials=5)
    assert launcher.batches[0] == lost
    assert states(tmp_path) == ["COMPLETE"] * 5


def test_a_repetition_whose_search_was_killed_as_it_took_it_is_made_up_for(tmp_path, monkeypatch):
    failed = run(tmp_path, fails_below_zero, n_trials=8).seen
    failed = [settings for settings in failed if settings["x"] < 0]
    add = optuna.Study.add_trial

    def add_and_end(study: optuna.Study, trial: FrozenTrial) -> None:
        add(study, trial)
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(optuna.Study, "add_trial", add_and_end)
        run(tmp_path, n_trials=8)
    assert run(tmp_path, n_trials=8).seen == failed
    assert len(database.counted(load(tmp_path).trials)) == 8


def test_a_repetition_of_another_space_stands_in_for_nothing(tmp_path):
    """Once the settings are swept again that it had, what it was to repeat is repeated."""

    def end(settings: Params) -> float:
        raise Killed

    failed = run(tmp_path, lambda _: "no number", n_trials=1).seen
    with pytest.raises(Killed):
        run(tmp_path, end, n_trials=1)
    run(tmp_path, space=[X], n_trials=1)
    assert run(tmp_path, n_trials=1).seen == failed


def test_trials_of_a_search_that_lives_are_left_alone(tmp_path, capsys):
    inner: list[Params] = []

    def another_search(settings: Params) -> float:
        if not inner:
            inner.extend(run(tmp_path, n_trials=5).seen)
        return square(settings)

    outer = run(tmp_path, another_search, n_trials=5).seen
    assert len(outer) == 2 and len(inner) == 3
    assert "2 trials are under way in another search" in capsys.readouterr().out
    assert states(tmp_path) == ["COMPLETE"] * 5


def test_a_trial_that_never_began_does_not_count(tmp_path):
    run(tmp_path, n_trials=1)
    load(tmp_path).ask()  # as if killed before its settings were drawn
    run(tmp_path, n_trials=3)
    assert states(tmp_path) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]


def test_trials_of_a_killed_process_are_taken_up(tmp_path):
    """`kill -9` leaves locks to the operating system."""
    began = tmp_path / "began"

    def hang(_: Params) -> float:
        began.touch()
        time.sleep(600)
        return 0.0

    process = multiprocessing.get_context("fork").Process(target=run, args=(tmp_path, hang))
    process.start()
    deadline = time.monotonic() + 60
    while not began.exists():
        assert time.monotonic() < deadline and process.is_alive()
        time.sleep(0.02)
    assert len(run(tmp_path, n_trials=5).seen) == 3  # its own are left to it
    process.kill()
    process.join()
    lost = [trial.params for trial in load(tmp_path).trials[:2]]
    assert run(tmp_path, n_trials=5).seen == lost
    assert states(tmp_path) == ["COMPLETE"] * 5
    assert {path.name for path in tmp_path.glob("*.lock")} <= {"optuna.lock"}


# The real config, sweeper and launcher, with a main that trains nothing.
PROGRAM = """
from utils import config

def main(cfg):
    if cfg.encoder.z_dim == 8:
        raise ValueError("eight")
    return cfg.featurizer.loss.beta, cfg.encoder.z_dim

config.run(main)
"""


def test_a_search_by_way_of_hydra(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    beta = "featurizer.loss.beta=tag(log, interval(0.01, 1))"
    options = ["hypopt=optuna", "hypopt.n_trials=4", "hypopt.n_parallel=3", "seed=1"]
    arguments = main_command(tmp_path, *options, beta, "encoder.z_dim=choice(4, 8)")[2:]
    done = call(sys.executable, str(program), *arguments)
    trials = database.load(tmp_path / "results/exp_none" / database.FILE, "none").trials
    assert len(trials) == 4 and {trial.params["encoder.z_dim"] for trial in trials} == {4, 8}
    for trial in trials:
        values = [trial.params["featurizer.loss.beta"], trial.params["encoder.z_dim"]]
        if values[1] == 8:
            assert trial.user_attrs["error"] == "ValueError: eight"
        else:
            assert trial.values == values
    assert "Search none: 4 trials" in done.stdout
    assert "Beaten by no other in val/pred/err and val/comm/rate" in done.stdout


@pytest.mark.slow
def test_a_search_keeps_the_objectives_of_its_runs(tmp_path):
    """Those on validation data; a larger total adds the difference."""
    options = ["hypopt=optuna", "featurizer.loss.beta=tag(log, interval(0.01, 1))"]
    folder = tmp_path / "results/exp_none"
    for n, n_new in ((2, 2), (2, 0), (3, 1)):
        done = call(*main_command(tmp_path, *options, f"hypopt.n_trials={n}", base=DIGITS))
        assert done.returncode == 0, done.stderr
        assert f"{n_new} of {n_new} jobs done" in done.stdout
        trials = database.load(folder / database.FILE, "none").trials
        runs = tables.merge(tables.collect(folder)[0])
        assert len(trials) == len(runs) == n
        found = {tuple(row) for row in runs[["val/pred/err", "val/comm/rate"]].to_numpy()}
        assert {tuple(trial.values) for trial in trials} == found
        for trial in trials:
            row = pd.read_csv(Path(trial.user_attrs["run"]) / "results_predictor.csv").iloc[0]
            assert row["val/pred/err"] == trial.values[0] and trial.user_attrs["seconds"] > 0


# --- studies that do not fit


def test_a_changed_choice_is_an_error_that_names_both(tmp_path):
    run(tmp_path, space=["x=choice(1, 2)"], n_trials=1)
    message = r"^x: .*'study'.*choice\(1, 2\).*choice\(1, 3\).*hypopt.study_name="
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, space=["x=choice(1, 3)"], n_trials=2)
    with pytest.raises(ConfigError, match=r"choice\(1, 2\).*interval\(0.5, 2"):
        run(tmp_path, space=["x=interval(0.5, 2)"], n_trials=2)
    assert run(tmp_path, space=["x=choice(1, 3)"], n_trials=2, name="other").seen


@pytest.mark.parametrize("fixed", [["y=2"], [], ["y=1", "z=3"]])
def test_other_fixed_settings_are_an_error_that_names_them(fixed, tmp_path):
    run(tmp_path, space=["x=choice(1, 2)", "y=1", "parallel_jobs=1", "seed=1"], n_trials=1)
    same = ["x=choice(1, 2)", "y=1", "parallel_jobs=2", "hypopt.n_trials=3", "seed=2"]
    assert len(run(tmp_path, space=same, n_trials=2).seen) == 1  # how it runs is its own business
    with pytest.raises(ConfigError, match=r"(y=2|no y|z=3).*'study'.*hypopt.study_name="):
        run(tmp_path, space=["x=choice(1, 2)", *fixed], n_trials=3)


def test_the_ends_of_intervals_may_move(tmp_path):
    run(tmp_path, n_trials=3, space=["x=interval(0.0, 1.0)"])
    new = run(tmp_path, n_trials=6, space=["x=interval(5.0, 6.0)"]).seen
    assert len(new) == 3 and all(5 <= settings["x"] <= 6 for settings in new)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"directions": ["maximize"]}, "hypopt.direction.*minimize.*maximize"),
        ({"objectives": ["val/pred/acc"]}, "monitor_return.*val/pred/err.*val/pred/acc"),
        ({"objectives": ["a", "b"]}, "hypopt.direction"),
    ],
)
def test_other_objectives_are_an_error(changed, message, tmp_path):
    run(tmp_path, n_trials=1)
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, n_trials=2, **changed)


def test_a_sampler_that_draws_no_single_trials_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="hydra/sweeper/sampler.*GridSampler"):
        run(tmp_path, sampler={"_target_": "optuna.samplers.GridSampler"})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["hypopt.n_trials=0"], "hypopt.n_trials must be 1 or more"),
        (["monitor_return=[test/pred/err,val/comm/rate]"], "test data"),
        (["hypopt.direction=[minimize,up]"], "minimize or maximize"),
        (["monitor_return=val/pred/err"], "2 entries for 1 objectives"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(overrides, message, tmp_path):
    overrides = ["hypopt=optuna", "encoder.z_dim=choice(4, 8)", *overrides]
    cfg = compose_config([*overrides, f"paths.results={tmp_path}"])
    with pytest.raises(ConfigError, match=message):
        search.check(cfg, overrides)


def test_a_search_is_checked_against_its_study_before_it_starts(tmp_path):
    def checked(choice: str) -> None:
        paths = f"paths.results={tmp_path}"
        overrides = ["hypopt=optuna", f"encoder.z_dim={choice}", paths]
        search.check(compose_config(overrides), ["fixed=1", *overrides])

    folder = tmp_path / "exp_none"
    folder.mkdir()
    objectives = compose_config(["hypopt=optuna"]).monitor_return
    space = ["encoder.z_dim=choice(4, 8)"]
    run(folder, lambda _: (1, 2), 1, space=space, objectives=objectives, name="none")
    checked("choice(4, 8)")
    with pytest.raises(ConfigError, match=r"encoder.z_dim.*choice\(4, 8\).*choice\(4, 16\)"):
        checked("choice(4, 16)")


@pytest.mark.parametrize("name", ["2", "nan", "1e3", "true"])
def test_a_study_may_be_named_like_a_number(name, tmp_path):
    """Which is none in the config."""
    overrides = [*("hypopt=optuna", "monitor_return=val/pred/err", "hypopt.direction=[minimize]")]
    overrides += [f"experiment_name={name}", f"paths.results={tmp_path}"]
    cfg = compose_config([*overrides, "encoder.z_dim=choice(4, 8)"])
    file = tmp_path / experiment_folder(cfg) / database.FILE
    file.parent.mkdir()
    for n_trials in (1, 2):
        search.check(cfg, ["encoder.z_dim=choice(4, 8)"])
        sweeper = StudySweeper(
            file=str(file),
            study_name=cfg.hypopt.study_name,
            objectives=cfg.monitor_return,
            directions=cfg.hypopt.direction,
            n_trials=n_trials,
            n_parallel=1,
            retry_failed=True,
            sampler=RANDOM,
        )
        sweeper._launcher = FakeLauncher(lambda settings: settings["encoder.z_dim"])
        sweeper._sweep_dir = tmp_path / "sweep"
        sweeper.sweep(["encoder.z_dim=choice(4, 8)"])
        (found,) = database.names(file)
        assert len(database.load(file, found).trials) == n_trials
    with pytest.raises(ConfigError, match="cannot become"):
        search.check(cfg, ["encoder.z_dim=choice(4, 16)"])


# --- who wins


@pytest.mark.parametrize("sampler", [RANDOM, NSGAII], ids=["random", "nsgaii"])
def test_of_two_objectives_all_that_no_other_beats_win(sampler, tmp_path):
    run(tmp_path, conflict, 16, objectives=("a", "b"), sampler=sampler)
    best = {trial.number for trial in database.best_trials(load(tmp_path))}
    for trial in load(tmp_path).trials:
        # of x**2 and (x - 1)**2, all x in [0, 1] are on the front, and at most one below 0
        assert trial.number in best or trial.params["x"] < 0
    assert "Beaten by no other in a and b" in summary(load(tmp_path), tmp_path)


def test_the_best_trial_and_how_many_failed_are_said_in_words(tmp_path):
    run(tmp_path, fails_below_zero, n_trials=8, retry_failed=False)
    study = load(tmp_path)
    complete = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    (best,) = database.best_trials(study)
    assert best.value == min(trial.value for trial in complete)
    lines = summary(study, tmp_path).splitlines()
    assert f"8 trials, {len(complete)} complete, {8 - len(complete)} failed" in lines[0]
    assert lines[1] == "Best val/pred/err (minimized):"
    assert f"trial {best.number}: val/pred/err {best.value:.5g}" in lines[2]


# --- importance, figures, table


def quadratic_trials(n: int = 60) -> list[FrozenTrial]:
    """Values that depend on the exponent of `log`, hardly on `x`, and not on the others."""
    space = Space.of(
        ["log=tag(log, interval(1e-8, 1))", X, "c=choice(a, b)", "same=choice(1)"]
    ).distributions
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(n):
        trial = study.ask(space)
        study.tell(trial, (np.log10(trial.params["log"]) + 3) ** 2 + 0.1 * trial.params["x"])
    study.tell(study.ask(space), state=TrialState.FAIL)
    return study.trials


def test_importance_is_where_the_variance_comes_from():
    shares = importances(quadratic_trials())
    assert set(shares) == {"log", "x", "c"} and next(iter(shares)) == "log"
    assert shares["log"] > 0.9
    assert sum(shares.values()) == pytest.approx(1)


def test_few_or_equal_trials_say_nothing_about_importance():
    trials = quadratic_trials(12)
    assert importances(trials[:9]) == {}
    for trial in trials:
        trial.value = 1.0 if trial.state == TrialState.COMPLETE else None
    assert importances(trials) == {}


def test_importance_after_an_interval_has_moved(tmp_path):
    run(tmp_path, n_trials=10, space=["x=interval(0.0, 1.0)", LOG_Y])
    run(tmp_path, n_trials=20, space=["x=interval(0.0, 2.0)", LOG_Y])
    shares = importances(load(tmp_path).trials)
    assert shares["x"] > 0.8


def sometimes(function: Callable[[Params], object]) -> Callable[[Params], object]:
    """A function that fails for some settings."""

    def failing(settings: Params) -> object:
        if settings["x"] > 0.7:
            raise ValueError("no memory left")
        return function(settings)

    return failing


def test_figures_and_table_of_all_studies(tmp_path):
    run(tmp_path, sometimes(square), 14, name="one")
    run(tmp_path, sometimes(conflict), 14, name="two", objectives=("val/comm/rate", "val/pred/err"))
    plot_optuna_hypopt(Experiment(tmp_path))
    drawn = {path.name for path in tmp_path.glob("optuna_*.png")}
    assert drawn == {
        *(
            f"optuna_{name}_{kind}.png"
            for name in ("one", "two")
            for kind in ("history", "importance")
        ),
        "optuna_two_pareto.png",
    }
    for name in drawn:
        with Image.open(tmp_path / name) as image:
            assert min(image.size) > 200 and len(image.convert("L").getcolors()) > 10
        assert (tmp_path / name).with_suffix(".pdf").read_bytes().startswith(b"%PDF")


def test_the_table_has_a_row_for_each_trial_that_counts(tmp_path):
    run(tmp_path, sometimes(conflict), 12, objectives=("a", "b"))
    run(tmp_path, sometimes(conflict), 12, objectives=("a", "b"))  # repeats those that failed
    table, study = trials_table(load(tmp_path)), load(tmp_path)
    assert len(table) == 12 < len(study.trials)
    failed = table["state"] == "failed"
    assert failed.any() and (table.loc[failed, "error"] == "ValueError: no memory left").all()
    assert table.loc[failed, ["a", "b"]].isna().all(axis=None)
    assert set(table.loc[table["is_best"], "number"]) == {
        trial.number for trial in database.best_trials(study)
    }
    assert (table.loc[~failed, "a"] == table.loc[~failed, "x"] ** 2).all()


def test_an_experiment_without_a_search_says_so(tmp_path, capsys):
    plot_optuna_hypopt(Experiment(tmp_path))
    assert "No search has begun" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_an_unknown_study_is_named(tmp_path):
    run(tmp_path, n_trials=1)
    with pytest.raises(ConfigError, match="studies.*'other'.*study"):
        plot_optuna_hypopt(Experiment(tmp_path), studies=["other"])
    run(tmp_path, lambda _: math.nan, n_trials=1, name="failed")
    plot_optuna_hypopt(Experiment(tmp_path), studies=["failed"])
    assert [path.name for path in tmp_path.glob("optuna_*.*")] == ["optuna_failed.csv"]
