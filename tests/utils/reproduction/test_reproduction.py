"""bin/reproduce.sh: order, budget, resuming, verdicts."""

import json
import shutil

import pytest
from helpers.tiny import ROOT

from utils.aggregation.paper_comparison import published_numbers
from utils.reproduction import __main__ as reproduction
from utils.reproduction import report

SCRIPT = """#!/usr/bin/env bash
experiment=mine
echo start >>calls
trap 'echo stopped >>calls; exit 143' TERM
if [ ! -e ready ]; then touch ready; sleep 30 & wait; fi
if [ -e no_data ]; then echo "    DataError: X is missing"; exit 3; fi
run=results/exp_quick_mine/run_1
mkdir -p $run; echo '{"state": "done"}' >$run/status.json
echo done >>calls
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with one script, which is interrupted in its first call."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "mine.sh").write_text(SCRIPT)
    (tmp_path / "bin" / "mine.sh").chmod(0o755)
    reports = []
    monkeypatch.setattr(report, "write", reports.append)
    entry = reproduction._entry
    monkeypatch.setattr(reproduction, "plan", lambda: [entry("bin/mine.sh", "quick", 1.0)])
    return reports


def test_an_experiment_over_the_budget_is_terminated_continued_and_then_skipped(project):
    for budget, state in ((0.02, "interrupted"), (1, "done"), (1, "done")):
        assert reproduction.main(["--budget", str(budget)]) == 0
        assert project[-1][0]["state"] == state
    with open("calls") as calls:
        assert calls.read().split() == ["start", "stopped", "start", "done"]


def test_an_experiment_is_done_only_as_long_as_its_results_exist(project, tmp_path):
    (tmp_path / "ready").touch()
    assert reproduction.main([]) == 0
    seconds = project[-1][0]["seconds"]
    history = tmp_path / reproduction.LOG / "quick_mine.json"
    assert json.loads(history.read_text()).keys() == set(reproduction.HISTORY)
    shutil.rmtree(tmp_path / "results")
    assert reproduction.plan()[0]["state"] == "not run"
    assert reproduction.main([]) == 0 and project[-1][0]["seconds"] != seconds
    assert (tmp_path / "calls").read_text().split() == ["start", "done"] * 2


def test_missing_data_are_a_reason_and_other_errors_a_failure(project, tmp_path):
    (tmp_path / "ready").touch()
    (tmp_path / "no_data").touch()
    assert reproduction.main([]) == 0
    assert project[-1][0]["error"] == "DataError: X is missing"
    for last in ("", "KeyError: 'b'", "Configuration error: unknown key 'b'"):
        said = f'echo "DataError: a\n{last}"' if last else ""
        script = f"#!/bin/bash\nexperiment=mine\n{said}\nexit 1"
        (tmp_path / "bin" / "mine.sh").write_text(script)
        assert reproduction.main([]) == 1 and project[-1][0]["state"] == "failed"
        assert last in project[-1][0]["error"]


def test_the_plan_has_every_script_of_a_published_experiment_and_no_smoke_tests(monkeypatch):
    monkeypatch.chdir(ROOT)
    plan = reproduction.plan()
    planned = {entry["experiment"] for entry in plan}
    assert set(published_numbers()["experiment"]) - planned == {"minimal_code"}  # a notebook
    assert plan[0]["key"] == "quick_banana_viz_VIC"
    quick = [entry["command"] for entry in plan if entry["mode"] == "quick"]
    assert 35 <= sum(e["minutes"] for e in plan if e["mode"] == "quick") <= 45
    assert not any(room in command for command in quick for room in reproduction.SMOKE_TESTS)


def test_numbers_of_quick_modes_neither_pass_nor_fail(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    published = published_numbers().query("experiment == 'banana_viz_VIC'")
    done = []
    for mode, key in (("quick", "quick_banana_viz_VIC"), ("none", "banana_viz_VIC")):
        (tmp_path / f"exp_{key}").mkdir()
        ours = published.assign(ours=published["value"], sem=float("nan"), verdict="within")
        ours.to_csv(tmp_path / f"exp_{key}" / "paper_comparison.csv", index=False)
        command = "banana.sh" + " -m quick" * (mode == "quick")
        done.append({"key": key, "mode": mode, "command": command})
    quick = report._shown(report._numbers(done[:1]))
    shown = quick[quick["experiment"] == "banana_viz_VIC"]
    assert shown["verdict"].str.startswith("not comparable").all()
    assert (quick.drop(shown.index)["verdict"] == "not run").all()
    full = report._shown(report._numbers(done))  # full size takes precedence
    assert (full.loc[shown.index, "verdict"] == "within").all()
    ratios = report._ratios(report._numbers(done[:1]))
    assert (ratios["published"] == ratios["ours"]).all() and len(ratios) == 4


def test_an_experiment_of_which_nothing_is_published_has_a_report(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    entry = reproduction._entry("bin/digits/digits_viz_VIC.sh", "quick", 2.5)
    ended = {"state": "done", "seconds": 150.0, "device": "a CPU", "commit": "abc", "error": ""}
    report.write([entry | ended | {"finished": "2026-01-01T00:00:00"}])
    assert f"`{entry['command']}` | done" in (tmp_path / "reproduction.md").read_text()
