"""How an experiment stands: counts, what is not done and why, the way on."""

import contextlib
import os
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from tiny import call, compose

from utils import scheduler, status
from utils.identity import STAGES
from utils.report import report
from utils.runs import Run, find_run
from utils.states import LOST
from utils.traces import Trace


@pytest.fixture
def cfg(tmp_path):
    cfg = compose(tmp_path, "experiment=banana_viz_VIC")
    OmegaConf.resolve(cfg)
    return cfg


@pytest.fixture
def sweep(cfg):
    """Makes the trace of a job of a sweep."""

    def make(num: int, *overrides: str, name: str = "first_1", pid: int = 1) -> Trace:
        folder = Path(cfg.paths.outputs, name, f"{cfg.experiment}_{pid}", str(num))
        place = f"paths.results={cfg.paths.results}"
        return Trace(folder, num, ["experiment=banana_viz_VIC", place, *overrides])

    return make


@pytest.fixture
def queue(monkeypatch):
    """Sets what Slurm's queue holds; None: there is no Slurm."""

    def set_to(ids: set[str] | None) -> None:
        monkeypatch.setattr(scheduler, "in_slurm_queue", lambda: ids)

    set_to(None)
    return set_to


@contextlib.contextmanager
def under_way(trace: Trace, cfg, seed: int):
    """A job that works on its featurizer, whose run is given."""
    cfg = cfg.copy()
    cfg.seed = seed
    with trace.kept():
        trace.note(runs={stage: str(find_run(cfg, stage).results) for stage in STAGES})
        run = find_run(cfg, STAGES[0])
        with run.locked():
            run.start(None)
            try:
                yield run
            except BaseException as error:
                run.stop(error)
                raise


def finish(trace: Trace, cfg, seed: int) -> None:
    with under_way(trace, cfg, seed) as run:
        run.finish({"a": 1.0})


def fail(trace: Trace, cfg, seed: int, error: BaseException) -> None:
    with contextlib.suppress(type(error)), under_way(trace, cfg, seed):
        raise error


def lose(run: Run) -> None:
    """As if its process had been killed: it says that it is running, and nobody holds its lock."""
    run.start(None)


def lines(cfg) -> list[str]:
    return [" ".join(line.split()) for line in status.overview(cfg).splitlines()]


def test_nothing_is_there_yet(cfg):
    found = status.overview(cfg)
    assert "banana_viz_VIC, mode none: no jobs and no runs yet" in found


def test_jobs_are_counted_and_the_open_ones_named(cfg, sweep):
    finish(sweep(0, "seed=0", "distortion=VIC"), cfg, 0)
    fail(sweep(1, "seed=1", "distortion=VIC"), cfg, 1, ValueError("first line\nlast line"))
    fail(sweep(2, "seed=2", "distortion=VIC"), cfg, 2, KeyboardInterrupt())
    with under_way(sweep(3, "seed=3", "distortion=VIC"), cfg, 3) as run:
        run.note(epoch=4, n_epochs=10)
        found = lines(cfg)
    assert found[0] == (
        "banana_viz_VIC, mode none: 4 jobs: 1 running, 1 failed, 1 interrupted, 1 done"
    )
    assert found[2] == "featurizer: 1 running, 1 failed, 1 interrupted, 1 done"
    rows = found[4:]
    assert rows[0] == "STATE SINCE STAGE PROGRESS JOB"
    assert [row.split()[0] for row in rows[1:4:2]] == ["running", "last"]
    assert rows[1].endswith("s featurizer epoch 4/10 seed=3")  # not what is the same for all
    assert rows[2].startswith("failed") and rows[2].endswith("seed=1") and rows[3] == "last line"
    assert rows[4].startswith("interrupted") and rows[5] == "Ctrl-C"
    assert not any("seed=0" in row for row in rows)


def test_a_job_whose_process_is_gone_is_lost(cfg, tmp_path):
    folder, place = tmp_path / "outputs/x/banana_viz_VIC_1", f"paths.results={cfg.paths.results}"
    code = (
        "import os; from pathlib import Path; from utils.traces import Trace\n"
        f"with Trace(Path({str(folder / '0')!r}), 0, [{place!r}]).kept():\n"
        "    os._exit(1)"
    )
    assert call(sys.executable, "-c", code).returncode == 1
    found = lines(cfg)
    assert "1 jobs: 1 lost" in found[0] and LOST in found
    assert f"  lost: job 0 {place}:\n    {LOST}" in report(folder, Path("r"))


def test_runs_without_a_job_count_too(cfg):
    lose(find_run(cfg, "featurizer"))
    found = lines(cfg)
    assert found[0].endswith("0 jobs: none") and found[2] == "featurizer: 1 lost"
    assert any(line.startswith("lost") and "run_" in line for line in found)
    with find_run(cfg, "featurizer").locked():
        assert lines(cfg)[2] == "featurizer: 1 running"


def test_the_latest_attempt_counts(cfg, sweep):
    fail(sweep(0, "seed=1", "job_id=a"), cfg, 1, ValueError("first"))
    fail(sweep(0, "seed=1", "job_id=b", "slurm=local", name="b", pid=2), cfg, 1, OSError("second"))
    found = status.overview(cfg)
    assert "1 jobs: 1 failed" in found and "second" in found and "first\n" not in found
    finish(sweep(0, "seed=1", name="c", pid=3), cfg, 1)
    assert "1 jobs: 1 done" in status.overview(cfg)


def test_other_experiments_modes_and_places_are_left_out(cfg, sweep, tmp_path):
    sweep(0, "mode=quick").queue(None)
    sweep(1, "paths.results=elsewhere").queue(None)
    Trace(tmp_path / "outputs/x/banana_viz_VIC_trnslt_5/0").queue(None)
    assert "no jobs" in status.overview(cfg)


@pytest.mark.parametrize(
    ("ids", "state"),
    [({"87_1", "87_2"}, "1 queued"), ({"87_2"}, "1 lost"), (set(), "1 lost"), (None, "1 queued")],
)
def test_what_the_queue_does_not_know_is_lost(cfg, sweep, queue, ids, state):
    sweep(0, "seed=1", "slurm=cluster").queue("87_1")
    queue(ids)
    assert f"1 jobs: {state}" in status.overview(cfg)


def test_what_was_interrupted_and_is_back_in_the_queue_waits(cfg, sweep, queue):
    trace = sweep(0, "seed=1", "slurm=cluster")
    trace.queue("87_1")
    fail(trace, cfg, 1, SystemExit(1))
    trace.note(scheduler_job="87_1")  # as the scheduler's environment says
    queue({"87_1"})
    assert "1 jobs: 1 queued" in status.overview(cfg)
    queue(set())
    assert "1 jobs: 1 interrupted" in status.overview(cfg)


def test_what_a_dead_process_was_to_start_is_lost(cfg, sweep):
    sweep(0, "slurm=local", pid=os.getpid()).queue(None)
    assert "1 jobs: 1 queued" in status.overview(cfg)
    sweep(0, "slurm=local", name="second", pid=2**22 + 1).queue(None)
    assert "1 jobs: 1 lost" in status.overview(cfg)


def test_a_job_that_began_is_not_queued_again(cfg, sweep):
    with under_way(sweep(0), cfg, 1):
        sweep(0).queue("87")
        assert "1 jobs: 1 running" in status.overview(cfg)
    sweep(0).queue("87")
    assert "1 jobs: 1 done" in status.overview(cfg)


def test_the_way_on_is_said(cfg, sweep, queue):
    for num, job_id in enumerate(("87_1", "87_3", "86")):
        sweep(num, f"seed={num}", "slurm=cluster", name="last").queue(job_id)
    queue({"87_1", "87_3", "86"})
    assert status.overview(cfg).endswith("Cancel what is under way: scancel 86 '87_[1,3]'")
    queue({"87_3"})
    assert "Run again what is not done: the same command again" in status.overview(cfg)
    Path(cfg.paths.outputs, "last", "arguments").touch()
    expected = "Run again what is not done: bin/banana/banana_viz_VIC.sh -c last"
    assert expected in status.overview(cfg)


def test_slurm_arrays_are_read_as_jobs(monkeypatch, tmp_path):
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\necho 87 3 88\necho 87 4 87\necho 90 N/A 90\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert {"87_3", "87_4", "90"} <= scheduler.in_slurm_queue()
    squeue.write_text("#!/bin/sh\nexit 1\n")
    assert scheduler.in_slurm_queue() is None
    monkeypatch.setenv("PATH", "")
    assert scheduler.in_slurm_queue() is None


def test_a_thousand_runs_take_no_time(cfg, sweep):
    first = find_run(cfg, "featurizer")
    for i in range(1000):
        run = Run("featurizer", cfg, first.results / f"{i}/run_x", first.work / f"{i}/run_x")
        run.results.mkdir(parents=True)
        run._write_status(state="running" if i % 10 == 0 else "done")
        sweep(i, f"seed={i}").queue(None)
    start = time.process_time()
    found = status.overview(cfg)
    assert time.process_time() - start < 1
    assert "1000 jobs" in found and "featurizer: 100 lost, 900 done" in found


def test_the_script_names_close_experiments_and_modes(tmp_path):
    done = call("bin/status.sh", "banana_vizVIC")
    assert done.returncode == 2 and "did you mean banana_viz_VIC" in done.stderr
    with pytest.raises(SystemExit):
        status.main(["experiment=banana_viz_VIC", "mode=quik"])
    done = call("bin/status.sh", "banana_viz_VIC", "-m", "quick", "-a", f"paths.results={tmp_path}")
    assert done.returncode == 0 and "no runs yet" in done.stdout, done.stderr
    assert call("bin/status.sh").returncode == 2
    assert "usage" in call("bin/status.sh", "-h").stdout


def test_it_starts_at_once():
    code = "import sys, utils.status; assert not {'torch', 'pandas', 'optuna'} & set(sys.modules)"
    done = call(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
