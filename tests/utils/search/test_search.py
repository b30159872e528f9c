"""Studies survive failures, kills and changed settings."""

import json
import math
import multiprocessing
import sqlite3
import sys
import time
from pathlib import Path

import pytest
from helpers.interruptions import wait_until
from helpers.searches import (
    Params,
    conflict,
    fails_below_zero,
    load,
    run,
    sampler,
    square,
    states,
)
from helpers.tiny import call, main_command
from hydra_plugins.sweeps import SAMPLERS
from optuna.trial import TrialState
from sqlalchemy import event
from sqlalchemy.engine import Engine

from lossyless.tracking import NonFiniteLossError
from utils import search
from utils.cluster import sweep
from utils.cluster.sweep_job import JobError
from utils.configs.checks import ConfigError
from utils.configs.composing import compose_config
from utils.search import study as studies
from utils.search.loop import summary
from utils.training.jobs import UnknownMetricError


@pytest.fixture(scope="module", autouse=True)
def sqlite_without_fsync():
    """Database commits do not wait for the disk."""

    def turn_off(connection, _record):
        connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", turn_off)
    yield
    event.remove(Engine, "connect", turn_off)


def write_status(folder: Path, num: int = 0, **status: object) -> None:
    """Write the status file of a search's job."""
    job = folder / f"sweep/{num}"
    job.mkdir(parents=True, exist_ok=True)
    (job / "job.json").write_text(json.dumps(status))


# --- totals


def test_n_trials_is_the_total_of_a_study(tmp_path, capsys):
    assert list(map(len, run(tmp_path, n_trials=5, n_parallel=3).batches)) == [3, 2]
    assert not run(tmp_path, n_trials=5).seen
    assert "Nothing to run" in capsys.readouterr().out
    assert len(run(tmp_path, n_trials=7).seen) == 2
    assert states(tmp_path) == ["COMPLETE"] * 7
    assert len({trial.params["x"] for trial in load(tmp_path).trials}) == 7  # none is sampled again
    assert len(run(tmp_path, n_trials=2, name="another").seen) == 2
    assert studies.names(tmp_path / studies.FILE) == ["study", "another"]
    load(tmp_path).ask()  # as if killed before its settings were sampled: does not count
    run(tmp_path, n_trials=8)
    assert states(tmp_path) == ["COMPLETE"] * 7 + ["FAIL", "COMPLETE"]


def test_a_search_in_two_calls_samples_as_in_one(tmp_path):
    learning = sampler("tpe", n_startup_trials=3)
    for folder, calls in (("once", [7]), ("twice", [4, 7])):
        (tmp_path / folder).mkdir()
        for n_trials in calls:
            run(tmp_path / folder, n_trials=n_trials, n_parallel=1, sampler=learning)
    once, twice = (load(tmp_path / folder).trials for folder in ("once", "twice"))
    assert [trial.params for trial in once] == [trial.params for trial in twice]


def test_a_trial_stores_its_command_line(tmp_path):
    started, finished = "2021-06-01T10:00:00+00:00", "2021-06-01T10:00:12.5+00:00"
    runs = {"featurizer": "a", "predictor": "b"}
    write_status(tmp_path, state="done", started=started, finished=finished, runs=runs)
    write_status(tmp_path, 1, state="lost", finished=finished)  # cancelled before it started
    run(tmp_path, n_trials=2)
    trial, unstarted = load(tmp_path).trials
    assert "seconds" not in unstarted.user_attrs
    expected = ["fixed=1", *(f"{key}={value}" for key, value in trial.params.items())]
    assert trial.user_attrs["overrides"] == expected
    assert trial.user_attrs["seconds"] == 12.5 and trial.user_attrs["run"] == "b"
    assert trial.value == trial.params["x"] ** 2


# --- failures


def test_failed_trials_count_and_are_repeated_once_by_each_further_call(tmp_path):
    first = run(tmp_path, fails_below_zero, n_trials=8).seen
    trials = load(tmp_path).trials
    assert len(trials) == 8
    for trial in trials:
        assert (trial.state == TrialState.FAIL) == (trial.params["x"] < 0)
        assert trial.user_attrs.get("error") in (None, "ValueError: x is negative")
    failed = [settings for settings in first if settings["x"] < 0]
    assert 0 < len(failed) < 8
    assert not run(tmp_path, fails_below_zero, n_trials=8, retry_failed=False).seen
    for _ in range(2):
        assert run(tmp_path, fails_below_zero, n_trials=8).seen == failed
    assert run(tmp_path, square, n_trials=9).seen[: len(failed)] == failed  # repaired
    counted = studies.counted(load(tmp_path))
    assert len(counted) == 9 and {trial.state for trial in counted} == {TrialState.COMPLETE}
    assert not run(tmp_path, square, n_trials=9).seen


def test_a_trial_that_diverges_is_never_repeated(tmp_path):
    """Its error is raised or, for a submitted job, recorded in the status file."""
    message = "training stopped at step 3: loss=nan"
    write_status(tmp_path, 3, state="failed", error=f"NonFiniteLossError: {message}")
    errors = [NonFiniteLossError(message), JobError(f"job 3 (12_3): {message}")]
    ends = iter([math.nan, -math.inf, *errors])

    def diverge(_: Params) -> float:
        end = next(ends)
        if isinstance(end, Exception):
            raise end
        return end

    run(tmp_path, diverge, n_trials=4, n_parallel=1)
    assert states(tmp_path) == ["FAIL"] * 4
    found = [trial.user_attrs["error"] for trial in load(tmp_path).trials]
    assert found[:2] == ["val/pred/err is nan", "val/pred/err is -inf"]
    assert all(message in error for error in found[2:])
    assert not run(tmp_path, n_trials=4).seen


def test_a_job_that_does_not_return_a_number_has_failed(tmp_path):
    returned = iter([None, "text", (1.0, 2.0)])
    run(tmp_path, lambda _: next(returned), n_trials=3)
    assert states(tmp_path) == ["FAIL"] * 3


def test_an_unknown_objective_ends_the_search_and_leaves_its_study_free(tmp_path):
    jobs, message = [], "there is no metric ['errr']; there are ['err']"

    def train(settings: Params) -> float:
        jobs.append(settings)
        raise error

    # raised in a worker, then by a submitted job
    for error in (UnknownMetricError(message), JobError(message)):
        jobs.clear()
        with pytest.raises(type(error), match="errr.*'err'"):
            run(tmp_path, train, objectives=("errr", "rate"))
        assert len(jobs) == 2  # one batch
        write_status(tmp_path, state="failed", error=f"UnknownMetricError: {message}")
    assert run(tmp_path).seen[:2] == jobs
    assert states(tmp_path) == ["COMPLETE"] * 5


# --- kills


def test_an_interrupted_search_runs_the_trials_of_an_uninterrupted_one(tmp_path):
    (tmp_path / "whole").mkdir()
    expected = run(tmp_path / "whole", n_trials=5).seen
    calls = iter(["ok", "kill", "ok", "ok", "ok", "kill", "ok", "ok", "ok", "ok"])

    def sometimes_killed(settings: Params) -> float:
        if next(calls) == "kill":
            raise KeyboardInterrupt
        return square(settings)

    for _ in range(2):  # in the first batch, then in the second one
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, sometimes_killed)
    run(tmp_path, sometimes_killed, retry_failed=False)
    counted = studies.counted(load(tmp_path))
    assert {trial.state for trial in counted} == {TrialState.COMPLETE}
    assert sorted(trial.params["x"] for trial in counted) == sorted(p["x"] for p in expected)


def test_trials_of_a_live_search_are_left_alone_and_those_of_a_killed_one_repeated(tmp_path):
    began = tmp_path / "began"

    def hang(_: Params) -> float:
        began.touch()
        time.sleep(600)
        return 0.0

    process = multiprocessing.get_context("fork").Process(target=run, args=(tmp_path, hang))
    process.start()
    wait_until(began.exists)
    assert len(run(tmp_path, n_trials=5).seen) == 3  # not those that are running
    process.kill()
    process.join()
    lost = [trial.params for trial in load(tmp_path).trials[:2]]
    assert run(tmp_path, n_trials=5, retry_failed=False).seen == lost
    assert states(tmp_path) == ["FAIL"] * 2 + ["COMPLETE"] * 5


# --- through Hydra

# The real config, sweeper and launcher, with a main that trains nothing.
PROGRAM = """
from utils.cluster import sweep

def main(cfg):
    if cfg.encoder.z_dim == 8:
        raise ValueError("eight")
    return cfg.featurizer.loss.beta, cfg.encoder.z_dim

sweep.run(main)
"""


def test_a_search_through_hydra(tmp_path, monkeypatch, capsys):
    (tmp_path / "program.py").write_text(PROGRAM)
    beta = "featurizer.loss.beta=tag(log, interval(0.01, 1))"
    space = [beta, "encoder.z_dim=choice(4, 8)", "seed=1"]
    options = ["hypopt=optuna", "hypopt.n_trials=4", "hypopt.n_parallel=3", "hypopt.study_name=2"]
    folder = tmp_path / "a=1, b?#é"
    arguments = main_command(folder, *options, *space)[2:]
    done = call(sys.executable, str(tmp_path / "program.py"), *arguments)
    trials = studies.load(folder / "results/exp_none" / studies.FILE, "2").trials
    assert len(trials) == 4 and {trial.params["encoder.z_dim"] for trial in trials} == {4, 8}
    for trial in trials:
        values = [trial.params["featurizer.loss.beta"], trial.params["encoder.z_dim"]]
        if values[1] == 8:
            assert trial.user_attrs["error"] == "ValueError: eight"
        else:
            assert trial.values == values
    assert "Search 2: 4 trials" in done.stdout
    assert "Pareto front of val/pred/err and val/comm/rate" in done.stdout
    assert len(list(folder.glob("outputs/*/*/[0-3]"))) == 4
    # a complete search has nothing to do, and succeeds
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(sys, "argv", ["main.py", *arguments, "hypopt.retry_failed=false"])
    sweep.run(lambda cfg: pytest.fail("a job was started"))  # exit status 0
    assert "Nothing to run" in capsys.readouterr().out


def test_known_samplers_work_and_others_are_an_error_that_lists_them(tmp_path):
    for name in SAMPLERS:
        run(tmp_path, conflict, 1, name=name, objectives=("a", "b"), sampler=sampler(name))
        assert load(tmp_path, name).trials[0].state == TrialState.COMPLETE
    with pytest.raises(ConfigError, match="hydra/sweeper/sampler.*random, tpe or nsgaii"):
        run(tmp_path, sampler=sampler(unknown=1))
    with pytest.raises(ConfigError, match="hydra/sweeper/sampler(.|\n)*nsgaii(.|\n)*random"):
        compose_config(["hypopt=optuna", "hydra/sweeper/sampler=cmaes"])


# --- studies that do not match


def test_a_changed_study_is_an_error_that_names_the_setting(tmp_path):
    space = {"space": ["x=choice(1, 2)", "y=1", "parallel_jobs=1", "seed=1"]}
    run(tmp_path, n_trials=1, **space)
    same = ["x=choice(1, 2)", "y=1", "parallel_jobs=2", "hypopt.n_trials=3", "seed=2"]
    assert len(run(tmp_path, space=same, n_trials=2).seen) == 1  # none of these is part of a trial
    for changed, found in (
        ({"space": ["x=choice(1, 3)", "y=1"]}, r"x.*choice\(1, 2\).*choice\(1, 3\)"),
        ({"space": ["x=interval(0.5, 2)", "y=1"]}, r"x.*choice\(1, 2\).*interval"),
        ({"space": ["x=choice(1, 2)", "y=interval(1, 2)"]}, "y.*1.*interval"),
        ({"space": ["x=choice(1, 2)", "y=2"]}, "y.*1.*2"),
        ({"space": ["x=choice(1, 2)"]}, "y.*1"),
        ({"space": ["x=choice(1, 2)", "y=1", "z=3"]}, "z.*3"),
        ({"directions": ["maximize"]}, "hypopt.direction.*minimize.*maximize"),
        ({"objectives": ["val/pred/acc"]}, "monitor_return.*val/pred/err.*val/pred/acc"),
    ):
        with pytest.raises(ConfigError, match=rf"'study'.*{found}.*hypopt.study_name="):
            run(tmp_path, n_trials=3, **(space | changed))
    assert run(tmp_path, n_trials=1, name="another", **(space | changed)).seen
    for ends, n_trials in (("0.0, 1.0", 3), ("5.0, 6.0", 6)):  # the ends of an interval may change
        new = run(tmp_path, n_trials=n_trials, name="moved", space=[f"x=interval({ends})"]).seen
    assert len(new) == 3 and all(5 <= settings["x"] <= 6 for settings in new)


def test_an_impossible_search_is_rejected(tmp_path):
    for wrong, found in (
        (["hypopt.n_trials=0"], "hypopt.n_trials"),
        (["monitor_return=[test/pred/err,val/comm/rate]"], "test/pred/err"),
        (["hypopt.direction=[minimize,up]"], "hypopt.direction.*up"),
        (["monitor_return=val/pred/err"], "hypopt.direction.*monitor_return.*val/pred/err"),
        (["hypopt.direction=null"], "hypopt.direction.*None"),
        (["hypopt.direction=[minimize]", "monitor_return=null"], "monitor_return.*None"),
        (["hypopt.direction=[]", "monitor_return=[]"], "monitor_return"),
    ):
        overrides = ["hypopt=optuna", "encoder.z_dim=choice(4, 8)", *wrong]
        cfg = compose_config([*overrides, f"paths.results={tmp_path}"])
        with pytest.raises(ConfigError, match=found):
            search.check(cfg, overrides)
    with pytest.raises(ConfigError, match="nothing to search"):
        search.check(cfg, ["encoder.z_dim=4"])
    one = ["monitor_return=val/pred/err", "hypopt.direction=minimize"]  # without brackets
    search.check(compose_config([*overrides[:2], *one, f"paths.results={tmp_path}"]), overrides)
    # so is one that does not match its study, before anything starts
    space = ["hypopt=optuna", "encoder.z_dim=choice(4, 8)", "hypopt.study_name=2"]
    cfg = compose_config([*space, f"paths.results={tmp_path}"])
    (tmp_path / "exp_none").mkdir()
    objectives = list(cfg.monitor_return)
    run(tmp_path / "exp_none", lambda _: (1, 2), 1, space=space, objectives=objectives, name="2")
    search.check(cfg, space)
    with pytest.raises(ConfigError, match=r"encoder.z_dim.*choice\(4, 8\).*choice\(4, 16\)"):
        search.check(cfg, [override.replace("4, 8", "4, 16") for override in space])


def test_a_file_of_another_release_of_optuna_is_an_error_with_the_upgrade(tmp_path):
    run(tmp_path, n_trials=1)
    studies.storage.cache_clear()
    with sqlite3.connect(tmp_path / studies.FILE) as connection:  # a file of Optuna 2
        connection.execute("UPDATE alembic_version SET version_num = 'v2.6.0.a'")
    with pytest.raises(ConfigError, match=rf"optuna.db.*storage upgrade.*{tmp_path}") as caught:
        run(tmp_path)
    assert "\n" not in str(caught.value)


# --- results


def test_the_best_trials_of_two_objectives_are_their_pareto_front(tmp_path):
    nsgaii = sampler("nsgaii", population_size=4)
    run(tmp_path, conflict, 16, objectives=("a", "b"), sampler=nsgaii)
    best = {trial.number for trial in studies.best_trials(load(tmp_path))}
    for trial in load(tmp_path).trials:
        # for x**2 and (x - 1)**2, all x in [0, 1] are on the front, and at most one x below 0
        assert trial.number in best or trial.params["x"] < 0
    assert "Pareto front of a and b" in summary(load(tmp_path))


def test_the_summary_has_the_best_trial_and_how_many_failed(tmp_path):
    run(tmp_path, fails_below_zero, n_trials=8, retry_failed=False)
    study = load(tmp_path)
    complete = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    best = min(complete, key=lambda trial: trial.value)
    lines = summary(study)
    assert f"8 trials, {len(complete)} complete, {8 - len(complete)} failed" in lines
    assert f"trial {best.number}: val/pred/err {best.value:.5g}" in lines
