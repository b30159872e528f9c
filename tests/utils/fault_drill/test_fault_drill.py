"""A few trials of each fault drill; `make fault-drill` runs thousands."""

import csv
import time

import pytest

from utils.fault_drill import corruption
from utils.fault_drill.__main__ import main
from utils.fault_drill.trials import Trial, attempt_all, judge, summarise, write


def test_trials_that_hang_die_or_fail_are_counted_and_others_continue():
    def trial(case):
        if case == "hang":
            time.sleep(60)
        if case == "die":
            raise SystemExit(3)
        return judge(lambda: 1 / case == 1, (ValueError,), "")

    trials = attempt_all(trial, [1, "hang", 2, "die", 0, 1], timeout=2)
    verdicts = [trial.verdict for trial in trials]
    ok, fault = "survived", "unexplained"
    assert verdicts == [ok, "hung", "undetected", fault, fault, ok]
    row = summarise("fault", "target", trials, seed=0)
    assert (row.tried, row.survived, row.undetected, row.hung, row.unexplained) == (6, 2, 1, 1, 2)
    assert row.is_bad and not summarise("", "", [Trial("detected")], 0).is_bad


def test_a_trial_that_takes_too_much_memory_is_not_survived():
    def trial(n_bytes):
        return Trial("survived", str(len(bytes(n_bytes * [1]))))

    verdicts = [t.verdict for t in attempt_all(trial, [1, 10, 20_000_000], max_memory=64)]
    assert verdicts == ["survived", "survived", "unexplained"]


def test_damaged_files_are_detected(tmp_path):
    formats = corruption.make_formats()
    for name in ("file, hyperprior", "merging", "ArrayCompressor.save"):
        rows = corruption.damage_file(name, formats[name], 3, seed=0)
        assert sum(row.tried for row in rows) == 21 and not any(row.is_bad for row in rows)
    write(tmp_path / "rows.csv", rows)
    with (tmp_path / "rows.csv").open() as file:
        assert [row["tried"] for row in csv.DictReader(file)] == 7 * ["3"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kills"])
def test_a_quick_drill_finds_nothing(name, tmp_path):
    assert main([name, "--scale", "0.01", "--out", str(tmp_path)]) == 0
