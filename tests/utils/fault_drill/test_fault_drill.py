"""A few trials of each fault drill; `make fault-drill` runs thousands."""

import csv
import time

import pytest

from utils.fault_drill import configs, corruption, environment, inputs
from utils.fault_drill.__main__ import DRILLS, main
from utils.fault_drill.trials import Trial, attempt_all, is_bad, judge, summarise, write


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
    counts = {
        "tried": 6,
        "survived": 2,
        "undetected": 1,
        "hung": 1,
        "unexplained": 2,
        "detected": 0,
    }
    assert row.items() >= counts.items() and is_bad(row)
    assert not is_bad(summarise("", "", [Trial("detected")], 0))


def test_a_trial_that_takes_too_much_memory_is_not_survived():
    def trial(n_bytes):
        return Trial("survived", str(len(bytes(n_bytes * [1]))))

    verdicts = [t.verdict for t in attempt_all(trial, [1, 10, 20_000_000], max_memory=64)]
    assert verdicts == ["survived", "survived", "unexplained"]


def test_damaged_files_are_detected(tmp_path):
    formats = corruption.make_formats()
    for name in ("file, hyperprior", "merging", "ArrayCompressor.save"):
        rows = corruption.damage_file(name, formats[name], 3, seed=0)
        assert sum(row["tried"] for row in rows) == 21 and not any(map(is_bad, rows))
    write(tmp_path / "rows.csv", rows)
    with (tmp_path / "rows.csv").open() as file:
        assert [row["tried"] for row in csv.DictReader(file)] == 7 * ["3"]


def test_malformed_arrays_and_labels_and_a_full_disk_are_explained():
    rows = inputs.run_arrays(seed=0) + environment.run_writers(seed=0)
    assert not any(map(is_bad, rows)), rows


def test_malformed_settings_are_explained():
    assert not any(map(is_bad, configs.run(n_checks=16, n_runs=0, seed=0)))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in DRILLS if name != "corruption"])
def test_a_small_drill_finds_nothing(name, tmp_path):
    assert main([name, "--scale", "0.01", "--out", str(tmp_path)]) == 0
    assert (tmp_path / f"{name}.csv").is_file()
