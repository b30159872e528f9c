"""Runs and status files: states, results, damage, locks, signals."""

import contextlib
import math
import multiprocessing
import signal
import time

import pytest
from helpers.tiny import CLASSICAL, DIGITS, compose, resolved
from helpers.tiny import run as run_all
from omegaconf import OmegaConf

from utils.runs import files, signals
from utils.runs.files import is_locked
from utils.runs.identity import STAGES
from utils.runs.run import Run, find_run
from utils.runs.saved_runs import read_status
from utils.runs.status_file import StatusFile

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def new_run(tmp_path) -> Run:
    return find_run(resolved(tmp_path, base=DIGITS), "featurizer")


def test_a_run_is_new_then_running_then_done(new_run, monkeypatch):
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    ids = {"JOB_ID": 89, "ARRAY_JOB_ID": 87, "ARRAY_TASK_ID": 3, "RESTART_COUNT": 2}
    for name, value in ids.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    assert new_run.status() == {"state": "new"}
    with new_run.locked():
        new_run.start(None)
        status = new_run.status()
        assert status["state"] == "running" and status["stage"] == "featurizer"
        assert status["restarts"] == 2
        # bin/utils.sh searches for this line
        assert '\n  "scheduler_job": "87_3"' in new_run.status_file.path.read_text()
        assert OmegaConf.load(new_run.results / "config.yaml") == new_run.cfg
        new_run.finish({"test/feat/rate": 1.0})
        status = new_run.status()
    assert status["state"] == "done" and {"started", "finished", "pid", "host"} <= set(status)
    new_run.csv.unlink()
    assert new_run.status()["state"] == "new"  # its results are not on disk


def test_failures_and_interruptions_are_distinguished(new_run):
    for error, state, message in (
        (ValueError("a\nb"), "failed", "ValueError: a\nb"),
        (KeyboardInterrupt(), "interrupted", "Ctrl-C"),
        (SystemExit(1), "interrupted", "SystemExit: 1"),
        (signals.OutOfTime("no time left"), "interrupted", "no time left"),
        (signals.PeerLost("a process ended"), "interrupted", "a process ended"),
    ):
        with new_run.locked():
            new_run.start(None)
            assert not {"error", "traceback"} & set(new_run.status())  # from the earlier attempt
        with contextlib.suppress(type(error)), new_run.status_file.recording():
            raise error
        status = new_run.status()
        assert (status["state"], status["error"]) == (state, message)
        assert type(error).__name__ in status["traceback"]
        new_run.status_file.record_end(OSError("a consequence"))
        new_run.status_file.note(epoch=3)
        assert new_run.status() == status  # the first recorded end is kept


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


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.replace(",", ";").encode("utf-8-sig"),
        lambda text: text.replace(",", ";").replace(".", ",").replace("\n", "\r\n").encode(),
    ],
)
def test_results_may_have_been_saved_by_a_spreadsheet(new_run, change):
    metrics = {"test/feat/rate": 1.25, "test/feat/psnr": math.inf, "test/feat/mse": 1e-05}
    new_run.start(None)
    new_run.finish(metrics)
    new_run.csv.write_bytes(change(new_run.csv.read_text()))
    assert new_run.metrics() == metrics


@pytest.mark.parametrize(
    "content", [b"", b"a,b\n", b"a,b\n1\n", b"a\n1,2\n", b"a\nx\n", "a\n1\n".encode("utf-16")]
)
def test_damaged_results_are_named(new_run, content):
    new_run.start(None)
    new_run.csv.write_bytes(content)
    with pytest.raises(ValueError, match=new_run.csv.name) as caught:
        new_run.metrics()
    assert str(new_run.csv) in str(caught.value)


def test_runs_with_damaged_statuses_are_lost_and_resume(tmp_path):
    done = run_all(tmp_path, base=CLASSICAL)
    cfg = compose(tmp_path, base=CLASSICAL)
    for stage in STAGES:
        run = find_run(cfg, stage)
        for content in (b"\0" * 100, b'{"state": "runn', b"[]", b"{}", b"\xff", b""):
            run.status_file.path.write_bytes(content)
            assert run.status()["state"] == "lost"
            assert str(run.status_file.path) in run.status()["error"]
        assert read_status(run.results, run.work)["stage"] == stage  # known from its folder's name
    assert set(run_all(tmp_path, base=CLASSICAL)) == set(done)
    assert all(find_run(cfg, stage).status()["state"] == "done" for stage in STAGES)


# --- locks


def hold(file: StatusFile, path: str, seconds: float) -> None:
    with file.locked(), open(path, "a", buffering=1) as log:
        log.write("in\n")
        time.sleep(seconds)
        log.write("out\n")


@pytest.mark.parametrize("system", ["POSIX", "Windows"])
def test_a_lock_is_held_by_one_process_and_freed_when_it_is_killed(
    new_run, tmp_path, monkeypatch, system
):
    if system == "Windows":
        monkeypatch.setattr(files, "fcntl", None)
    file, log = new_run.status_file, tmp_path / "log"
    assert not is_locked(file.lock)
    first = FORK.Process(target=hold, args=(file, str(log), 30))
    first.start()
    while not log.exists():
        time.sleep(0.01)
    second = FORK.Process(target=hold, args=(file, str(log), 0))
    second.start()
    second.join(0.5)
    assert second.is_alive() and is_locked(file.lock)
    assert log.read_text().split() == ["in"]
    first.kill()
    second.join(20)
    assert log.read_text().split() == ["in", "in", "out"]
    with pytest.raises(ValueError), file.locked():
        assert is_locked(file.lock)
        raise ValueError
    assert not is_locked(file.lock)


def test_signals_of_other_systems_are_not_needed(monkeypatch):
    monkeypatch.delattr(signal, "SIGHUP")  # as on Windows
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not a handler that another test left
    with pytest.raises(signals.Terminated), signals.raised():
        signal.raise_signal(signal.SIGTERM)
