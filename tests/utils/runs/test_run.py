"""Runs and status files: states, results, damage, locks, signals."""

import contextlib
import math
import multiprocessing
import os
import time

import pytest
from helpers.tiny import CLASSICAL, DIGITS, compose
from helpers.tiny import run as run_all
from omegaconf import OmegaConf

from utils.runs import signals
from utils.runs.files import is_locked, write_text
from utils.runs.identity import STAGES
from utils.runs.run import Run, find_run
from utils.runs.saved_runs import read_status
from utils.runs.status_file import StatusFile

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def new_run(tmp_path) -> Run:
    cfg = compose(tmp_path, base=DIGITS)
    OmegaConf.resolve(cfg)
    return find_run(cfg, "featurizer")


def end(run: Run, error: BaseException) -> dict:
    """Status of the run after this error."""
    run.start(None)
    with contextlib.suppress(type(error)), run.status_file.recording():
        raise error
    return run.status()


def test_a_run_goes_from_new_over_running_to_done(new_run):
    assert new_run.status() == {"state": "new"}
    with new_run.locked():
        new_run.start(None)
        status = new_run.status()
        assert status["state"] == "running" and status["stage"] == "featurizer"
        assert status["scheduler_job"] is None and status["restarts"] == 0
        assert OmegaConf.load(new_run.results / "config.yaml") == new_run.cfg
        new_run.finish({"test/feat/rate": 1.0})
        status = new_run.status()
    assert status["state"] == "done" and {"started", "finished", "pid", "host"} <= set(status)
    new_run.csv.unlink()
    assert new_run.status()["state"] == "new"  # its results are not on disk


@pytest.mark.parametrize(
    ("error", "state", "message"),
    [
        (ValueError("a\nb"), "failed", "ValueError: a\nb"),
        (KeyboardInterrupt(), "interrupted", "Ctrl-C"),
        (SystemExit(1), "interrupted", "SystemExit: 1"),
        (signals.OutOfTime("no time left"), "interrupted", "no time left"),
        (signals.PeerLost("a process ended"), "interrupted", "a process ended"),
    ],
)
def test_failures_and_interruptions_are_distinguished(new_run, error, state, message):
    status = end(new_run, error)
    assert (status["state"], status["error"]) == (state, message)
    assert type(error).__name__ in status["traceback"]
    new_run.status_file.record_end(OSError("a consequence"))
    assert new_run.status() == status  # the first end stays
    with new_run.locked():
        new_run.start(None)
        assert not {"error", "traceback"} & set(new_run.status())  # forgotten


def test_an_error_after_a_sigterm_is_an_interruption(new_run):
    new_run.start(None)
    new_run.status_file.note(signal=signals.TERMINATED)
    new_run.status_file.record_end(ValueError("a worker is gone"))
    status = new_run.status()
    assert status["state"] == "interrupted"
    assert status["error"] == f"{signals.TERMINATED}; then ValueError: a worker is gone"


def test_facts_are_noted_only_while_a_run_is_under_way(new_run):
    note = new_run.status_file.note
    note(epoch=1)
    assert new_run.status() == {"state": "new"}
    new_run.start(None)
    note(epoch=2)
    assert new_run.status()["epoch"] == 2
    new_run.finish({"a": 1.0})
    note(epoch=3)
    assert new_run.status()["epoch"] == 2 and new_run.status()["state"] == "done"


def test_writers_of_several_processes_lose_nothing(new_run):
    """The ranks of a job write to the same file."""
    new_run.start(None)

    def write(number: int) -> None:
        for i in range(20):
            new_run.status_file.note(**{f"fact_{number}_{i}": i})

    processes = [FORK.Process(target=write, args=(number,)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
    found = {key for key in new_run.status() if key.startswith("fact")}
    assert found == {f"fact_{number}_{i}" for number in range(2) for i in range(20)}


def test_the_status_names_the_job_of_the_scheduler(new_run, monkeypatch):
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    for name, value in (("JOB_ID", 89), ("ARRAY_JOB_ID", 87), ("ARRAY_TASK_ID", 3)):
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    new_run.start(None)
    assert new_run.status()["restarts"] == 2
    assert '\n  "scheduler_job": "87_3"' in new_run.status_file.path.read_text()  # for bin/utils.sh


def test_metrics_survive_the_csv_to_the_last_bit(new_run):
    values = [1 / 3, math.pi * 1e-300, -0.0, 5e-324, 1e308, 2.0**53 + 1, math.inf]
    metrics = {f"test/feat/m{i}": value for i, value in enumerate(values)}
    new_run.start(None)
    new_run.finish(metrics)
    found = new_run.metrics()
    assert found == metrics and list(found) == list(metrics)
    assert math.copysign(1, found["test/feat/m2"]) == -1
    new_run.finish({"test/feat/nan": math.nan})
    assert math.isnan(new_run.metrics()["test/feat/nan"])


def test_a_file_is_complete_and_on_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    calls, fsync, replace = [], os.fsync, os.replace
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: (calls.append("fsync"), fsync(file)))
        patch.setattr(os, "replace", lambda *names: (calls.append("replace"), replace(*names)))
        write_text(tmp_path / "file", "first")
    assert calls[:2] == ["fsync", "replace"]

    def fail(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError):
        write_text(tmp_path / "file", "second")
    assert (tmp_path / "file").read_text() == "first"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b'{"state": "runn', b"[]", b"{}", b"\xff"])
def test_a_damaged_status_is_that_of_a_lost_run(new_run, content):
    new_run.start(None)
    new_run.status_file.path.write_bytes(content)
    status = new_run.status()
    assert status["state"] == "lost"
    assert f"{new_run.status_file.path} cannot be read" in status["error"]
    with new_run.locked():
        new_run.start(None)
        assert new_run.status()["state"] == "running" and "error" not in new_run.status()


def test_runs_with_damaged_statuses_resume(tmp_path):
    done = run_all(tmp_path, base=CLASSICAL)
    cfg = compose(tmp_path, base=CLASSICAL)
    for stage in STAGES:
        run = find_run(cfg, stage)
        run.status_file.path.write_bytes(b"")
        assert read_status(run.results, run.work)["stage"] == stage  # by the name of its folder
    assert set(run_all(tmp_path, base=CLASSICAL)) == set(done)
    assert all(find_run(cfg, stage).status()["state"] == "done" for stage in STAGES)


# --- locks


def hold(file: StatusFile, path: str, seconds: float) -> None:
    with file.locked(), open(path, "a", buffering=1) as log:
        log.write("in\n")
        time.sleep(seconds)
        log.write("out\n")


def test_a_second_process_waits(new_run, tmp_path, capfd):
    log = tmp_path / "log"
    arguments = (new_run.status_file, str(log), 0.3)
    processes = [FORK.Process(target=hold, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
    assert log.read_text().split() == ["in", "out", "in", "out"]
    assert str(new_run.results) in capfd.readouterr().out


def test_the_operating_system_frees_the_lock_of_a_killed_process(new_run, tmp_path):
    file = new_run.status_file
    assert not is_locked(file.lock)
    process = FORK.Process(target=hold, args=(file, str(tmp_path / "log"), 30))
    process.start()
    while not (tmp_path / "log").exists():
        time.sleep(0.01)
    assert is_locked(file.lock)
    process.kill()
    process.join(20)
    assert not is_locked(file.lock)
    with pytest.raises(ValueError), file.locked():
        assert is_locked(file.lock)
        raise ValueError
    assert not is_locked(file.lock)
