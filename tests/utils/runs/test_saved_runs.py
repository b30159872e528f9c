"""Runs on disk: several runs with one identity, damaged files, moved classes."""

import os
import shutil

import pytest
from helpers.tiny import resolved
from hydra.utils import get_object

from utils.runs.identity import STAGES, experiment_folder
from utils.runs.run import find_run
from utils.runs.saved_runs import MOVED, propagate_unfinished, read_records, upgrade


@pytest.fixture
def run(tmp_path):
    run = find_run(resolved(tmp_path), STAGES[0])
    run.start(None)
    return run


def of_experiment(run):
    return run.results.parents[len(run.results.relative_to(run.cfg.paths.results).parts) - 2]


@pytest.mark.parametrize("later", ["a_first", "z_last"])
def test_the_latest_of_several_runs_with_one_identity_counts(run, later):
    """Results were copied to another folder and then recomputed."""
    folder = of_experiment(run)
    assert folder.name == experiment_folder(run.cfg)
    run.finish({"a": 1.0})
    other = {"a_first": "z_last", "z_last": "a_first"}[later]
    for name, value in ((other, 1.0), (later, 2.0)):
        run.start(None)
        run.finish({"a": value})
        shutil.copytree(run.results, folder / name / run.results.name)
    shutil.rmtree(run.results)
    records, states = read_records(folder)
    (found,) = propagate_unfinished(records)[STAGES[0]]
    assert states == {"done": 2} and found.metrics == {"a": 2.0}


def test_a_finished_run_counts_before_a_later_failure(run):
    folder = of_experiment(run)
    run.finish({"a": 1.0})
    shutil.copytree(run.results, folder / "a" / run.results.name)
    run.start(None)
    run.status_file.record_end(ValueError("x"))
    records, _ = read_records(folder)
    (found,) = propagate_unfinished(records)[STAGES[0]]
    assert found.state == "done"


def test_a_run_with_a_damaged_status_is_lost(run):
    os.truncate(run.status_file.path, 0)
    records, states = read_records(of_experiment(run))
    assert states == {"lost": 1} and [record.stage for record in records] == [STAGES[0]]


def test_a_compressor_of_another_experiment_is_included(run):
    run.cfg.compressor_of = "other"
    for stage in STAGES[:2]:
        shared = find_run(run.cfg, stage)
        shared.start(None)
        shared.finish({"a": 1.0})
    assert shared.results.is_relative_to(folder := of_experiment(run))
    records, states = read_records(folder)
    assert [record.stage for record in records].count(STAGES[1]) == 1
    assert states == {"done": 2, "lost": 1}  # the lost one is the fixture's
    records, states = read_records(folder.with_name("exp_other"))
    assert [record.stage for record in records] == [STAGES[0]] and states == {"done": 1}


def test_classes_in_earlier_configs_get_their_current_names():
    for before, now in MOVED.items():
        get_object(now)
        name = "" if before[before.rindex(".") + 1].isupper() else ".Class"  # a class or a module
        assert upgrade(f"a:\n  _target_: {before}{name}\n") == f"a:\n  _target_: {now}{name}\n"
    unknown = "_target_: torch.optim.Adam"
    assert upgrade(unknown) == unknown
