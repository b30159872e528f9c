"""A few trials of each fault drill; `make fault-drill` runs thousands."""

import sys
import time
from itertools import islice

import pytest

from utils.fault_drill import configs, corruption, inputs, jobs
from utils.fault_drill.__main__ import DRILLS, main
from utils.fault_drill.trials import Outcome, Trials, is_bad, judge, summarise


def rows_of(drill):
    return [summarise(trials, trials.outcomes(), seed=0) for trials in drill]


def test_trials_that_hang_die_or_fail_are_counted_and_others_continue():
    def run(case):
        if case == "hang":
            time.sleep(60)
        if case == "die":
            raise SystemExit(3)
        return judge(lambda: 1 / case == 1, (ValueError,), "")

    trials = Trials("fault", "target", run, [1, "hang", 2, "die", 0, 1])
    outcomes = trials.outcomes(timeout=2)
    ok, fault = "survived", "unexplained"
    assert [found.verdict for found in outcomes] == [ok, "hung", "undetected", fault, fault, ok]
    row = summarise(trials, outcomes, seed=0)
    counts = {"tried": 6, "survived": 2, "undetected": 1, "hung": 1, "unexplained": 2}
    assert row.items() >= counts.items() and row["detected"] == row["known_limit"] == 0
    assert is_bad(row) and not is_bad(summarise(trials, [Outcome("detected")], 0))


def test_undetected_faults_can_be_a_known_limit_but_other_failures_cannot():
    def run(n):
        return judge(lambda: 1 / n == 1, (), "")

    outcomes = Trials("fault", "target", run, [0, 1, 2], is_limited=True).outcomes()
    assert [found.verdict for found in outcomes] == ["unexplained", "survived", "known_limit"]


def test_a_trial_that_takes_too_much_memory_is_not_survived():
    def run(n_bytes):
        return Outcome("survived", str(len(bytes(n_bytes * [1]))))

    for cases in ([1, 10, 20_000_000], [20_000_000]):
        *small, large = Trials("fault", "target", run, cases, max_memory=64).outcomes()
        assert all(found.verdict == "survived" for found in small)
        assert large.verdict == "unexplained" and large.memory > 64


@pytest.mark.parametrize(
    ("code", "verdict"),
    [("while True: pass", "survived"), ("time.sleep(2); sys.exit('error: why')", "detected")],
)
def test_a_command_survives_if_it_computes_for_long_but_not_if_it_is_slow(code, verdict):
    line = [sys.executable, "-c", f"import sys, time\n{code}"]
    assert configs.run_command(line, cpu_seconds=1).verdict == verdict


def test_drills_do_not_start_from_a_job_that_fails_without_a_fault(monkeypatch):
    monkeypatch.setattr(jobs, "run_child", lambda *_: 1)
    for drill in (jobs.environment(1, seed=0), jobs.kills(1, [0])):
        with pytest.raises(RuntimeError, match="without a fault"):
            next(drill)


def test_damaged_files_are_detected():
    formats = corruption.make_formats()
    for name, n_each in (
        ("file", 9),
        ("file, skipping damage", 9),
        ("merging", 3),
        ("ArrayCompressor.save", 3),
    ):
        rows = rows_of(corruption.damage(name, formats[name], n_each, seed=0))
        assert sum(row["tried"] for row in rows) == 7 * n_each and not any(map(is_bad, rows))


def test_malformed_arrays_and_settings_are_explained():
    checks = islice(configs.trials(n_checks=16, n_runs=1, seed=0), len(configs.KINDS))
    rows = [*rows_of(inputs.arrays(seed=0)), *rows_of(checks)]
    assert not any(map(is_bad, rows)), rows


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in DRILLS if name != "corruption"])
def test_a_small_drill_finds_nothing(name, tmp_path):
    assert main([name, "--scale", "0.01", "--out", str(tmp_path)]) == 0
    assert (tmp_path / f"{name}.csv").is_file()
