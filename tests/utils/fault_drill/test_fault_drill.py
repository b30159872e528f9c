"""A few trials of each fault drill; `make fault-drill` runs thousands."""

import time

import pytest

from utils.fault_drill import configs, corruption, kills
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


def test_kills_do_not_start_from_a_job_that_fails_by_itself(monkeypatch):
    monkeypatch.setattr(kills, "run_child", lambda *_: 1)
    with pytest.raises(RuntimeError, match="without a kill"):
        next(kills.trials(1, [0]))


def test_damaged_files_are_detected():
    formats = corruption.make_formats()
    for name in ("file", "merging", "ArrayCompressor.save"):
        rows = rows_of(corruption.damage(name, formats[name], 3, seed=0))
        assert sum(row["tried"] for row in rows) == 21 and not any(map(is_bad, rows))


def test_malformed_settings_are_explained():
    rows = rows_of(configs.trials(16, seed=0))
    assert not any(map(is_bad, rows)), rows


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in DRILLS if name != "corruption"])
def test_a_small_drill_finds_nothing(name, tmp_path):
    assert main([name, "--scale", "0.01", "--out", str(tmp_path)]) == 0
    assert (tmp_path / f"{name}.csv").is_file()
