"""Status of an experiment: counts, unfinished jobs and runs with errors, next commands."""

import contextlib
import os
import sys
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import pytest
from helpers.tiny import call, resolved

from utils import status
from utils.cluster import slurm_queries
from utils.configs.overrides import CONF_DIR
from utils.runs.experiment_status import FIX, report, short_names
from utils.runs.identity import STAGES
from utils.runs.run import Run, find_run
from utils.runs.status_file import LOST, StatusFile, job_file, queue_job


class Job:
    """A job of a sweep, identified by its folder."""

    def __init__(self, cfg, num: int, *overrides: str, name: str = "first_1", pid: int = 1):
        self.folder = Path(cfg.paths.outputs, name, f"{cfg.experiment_name}_{pid}", str(num))
        place = f"paths.results={cfg.paths.results}"
        self.facts = {"num": num, "overrides": ["experiment=banana_viz_VIC", place, *overrides]}

    @property
    def file(self) -> StatusFile:
        return job_file(self.folder)

    def queue(self, scheduler_job: str | None) -> None:
        queue_job(self.folder, *self.facts.values(), scheduler_job)

    def running(self) -> contextlib.AbstractContextManager[None]:
        return self.file.running(**self.facts)


@pytest.fixture
def cfg(tmp_path):
    return resolved(tmp_path, "experiment=banana_viz_VIC")


@pytest.fixture
def sweep(cfg):
    """Create a job of a sweep."""
    return lambda *args, **kwargs: Job(cfg, *args, **kwargs)


@pytest.fixture
def queue(monkeypatch):
    """Set the ids of the jobs in Slurm's queue; None if Slurm does not respond."""
    return lambda ids: monkeypatch.setattr(slurm_queries, "queued_ids", lambda: ids)


@contextlib.contextmanager
def under_way(job: Job, cfg, seed: int) -> Iterator[Run]:
    """Act as a job that is running its featurizer; yield that run."""
    cfg = cfg.copy()
    cfg.seed = seed
    with job.running():
        job.file.note(runs={stage: str(find_run(cfg, stage).results) for stage in STAGES})
        run = find_run(cfg, STAGES[0])
        with run.locked():
            run.start(None)
            with run.status_file.recording():
                yield run


def finish(job: Job, cfg, seed: int) -> None:
    with under_way(job, cfg, seed) as run:
        run.finish({"a": 1.0})


def fail(job: Job, cfg, seed: int, error: BaseException) -> None:
    with contextlib.suppress(type(error)), under_way(job, cfg, seed):
        raise error


def lines(cfg) -> list[str]:
    return [" ".join(line.split()) for line in status.overview(cfg).splitlines()]


def test_jobs_are_counted_and_unfinished_ones_named(cfg, sweep):
    assert "banana_viz_VIC: no jobs and no runs yet" in status.overview(cfg)
    finish(sweep(0, "seed=0", "distortion=VIC"), cfg, 0)
    fail(sweep(1, "seed=1", "distortion=VIC"), cfg, 1, ValueError("first line\nlast line"))
    fail(sweep(2, "seed=2", "distortion=VIC"), cfg, 2, KeyboardInterrupt())
    with under_way(sweep(3, "seed=3", "distortion=VIC"), cfg, 3) as run:
        run.status_file.note(epoch=4, n_epochs=10)
        found = lines(cfg)
    assert found[0] == ("banana_viz_VIC: 4 jobs: 1 running, 1 failed, 1 interrupted, 1 done")
    assert found[2] == "featurizer: 1 running, 1 failed, 1 interrupted, 1 done"
    rows = found[4:]
    assert rows[0].startswith("running")
    assert rows[0].endswith("s featurizer epoch 4/10 seed=3")  # omits what all jobs share
    assert rows[1].startswith("failed") and rows[1].endswith("seed=1")
    assert rows[2] == "ValueError: first line"
    assert rows[3].startswith("interrupted") and rows[4] == "Ctrl-C"
    assert not any("seed=0" in row for row in rows)


def test_names_of_jobs_are_short_and_distinct():
    jobs = [["a@b.x=1", "c.y=1", "d.y=[1,2]", "z=1"], ["a@b.x=2", "c.y=1", "d.y=2", "z=1", "~e"]]
    assert short_names(jobs) == ["x=1 y=[1,2]", "x=2 y=2 ~e"]
    jobs = [["c.y=1", "d.y=1"], ["c.y=2", "d.y=2"]]
    assert short_names(jobs) == ["c.y=1 d.y=1", "c.y=2 d.y=2"]


def test_a_job_whose_process_died_is_lost(cfg, sweep):
    def die() -> None:
        with sweep(0).running():
            os._exit(1)

    process = get_context("fork").Process(target=die)
    process.start()
    process.join(20)
    found = lines(cfg)
    assert "1 jobs: 1 lost" in found[0] and LOST in found
    text = report(sweep(0).folder.parent, Path("r"))
    assert f"  lost: job 0:\n    {LOST}" in text


def test_the_latest_attempt_counts(cfg, sweep):
    fail(sweep(0, "seed=1", "job_id=a"), cfg, 1, ValueError("first"))
    fail(sweep(0, "seed=1", "job_id=b", "slurm=local", name="b", pid=2), cfg, 1, OSError("second"))
    found = status.overview(cfg)
    assert "1 jobs: 1 failed" in found and "second" in found and "first\n" not in found
    finish(sweep(0, "seed=1", "distortion=VIC", name="c", pid=3), cfg, 1)  # the same runs
    assert "1 jobs: 1 done" in status.overview(cfg)
    sweep(0, "seed=1", "trainer.devices=2", name="d", pid=2**22 + 1).queue(None)
    assert "1 jobs: 1 queued" not in status.overview(cfg)  # its launcher is dead
    fail(sweep(1, "seed=2"), cfg, 2, ValueError("x"))
    assert "1 failed" in status.overview(cfg)


def test_other_experiments_names_modes_and_places_are_left_out(cfg, sweep, tmp_path, capsys):
    other = cfg.copy()
    other.experiment_name = other.compressor_of = "mine"
    Job(other, 0, "seed=0").queue(None)
    finish(Job(other, 1, "experiment_name=mine"), other, 1)
    elsewhere = cfg.copy()
    elsewhere.paths.results = str(tmp_path / "elsewhere")
    finish(sweep(3), elsewhere, 1)
    queue_job(tmp_path / "outputs/x/banana_viz_VIC_trnslt_5/0", 0, [], None)
    assert "no jobs" in status.overview(cfg)
    assert "2 jobs: 1 queued, 1 done" in status.overview(other)
    places = [f"paths.{name}={other.paths[name]}" for name in ("results", "pretrained", "outputs")]
    status.main(["experiment=mine", "mode=none", *places])
    assert capsys.readouterr().out.startswith("mine: 2 jobs: 1 queued, 1 done")


def test_jobs_and_runs_with_damaged_files_are_lost_and_named(cfg, sweep):
    fail(sweep(0, "seed=0"), cfg, 0, ValueError("x"))
    fail(sweep(1, "seed=1"), cfg, 1, ValueError("x"))
    files = [sweep(i).file.path for i in range(2)]
    one = cfg.copy()
    one.seed = 1
    for file in (*files, find_run(one, STAGES[0]).status_file.path):
        file.write_bytes(b'{"num": 1, "sta')
    found = status.overview(cfg)
    assert "2 jobs: 2 lost" in found and "featurizer: 1 failed, 1 lost" in found
    assert all(f"{file} cannot be read" in found for file in files)
    finish(sweep(1, "seed=1"), cfg, 1)
    assert "2 jobs: 1 lost, 1 done" in status.overview(cfg)


def test_runs_without_a_job_and_shared_compressors_count_too(cfg, sweep):
    find_run(cfg, "featurizer").start(None)  # without its lock, as if its process had been killed
    found = lines(cfg)
    assert found[0].endswith("0 jobs: none") and found[2] == "featurizer: 1 lost"
    assert any(line.startswith("lost") and "run_" in line for line in found)
    cfg.compressor_of = "other"
    with under_way(sweep(0), cfg, 0) as run:
        run.status_file.note(epoch=4, n_epochs=10)
        assert "exp_other" in run.results.parts
        found = status.overview(cfg)
    assert "1 jobs: 1 running" in found and "epoch 4/10" in found


# --- schedulers


@pytest.mark.parametrize(
    ("ids", "queued", "interrupted"),
    [
        ({"87_1", "87_2"}, "queued", "queued"),
        ({"87_2"}, "lost", "interrupted"),
        (None, "queued", "interrupted"),
    ],
)
def test_jobs_in_slurms_queue_are_queued_and_others_are_lost(
    cfg, sweep, queue, ids, queued, interrupted
):
    job = sweep(0, "seed=1", "slurm=cluster")
    job.queue("87_1")
    queue(ids)
    assert f"1 jobs: 1 {queued}" in status.overview(cfg)
    fail(job, cfg, 1, SystemExit(1))
    job.file.write(scheduler_job="87_1")  # as in a process that the scheduler has started
    job.queue("87_1")  # late: the job has already started
    assert f"1 jobs: 1 {interrupted}" in status.overview(cfg)


def test_a_local_job_whose_launcher_is_dead_is_lost(cfg, sweep):
    sweep(0, "slurm=local", pid=os.getpid()).queue(None)
    assert "1 jobs: 1 queued" in status.overview(cfg)
    sweep(0, "slurm=local", name="second", pid=2**22 + 1).queue(None)
    assert "1 jobs: 1 lost" in status.overview(cfg)


# --- the next commands


def test_jobs_under_way_are_cancelled(cfg, sweep, queue):
    ids = ("87_1", "87_3", "86")
    queue(set(ids))
    for num, job_id in enumerate(ids):
        sweep(num, f"seed={num}", "slurm=cluster", name="last").queue(job_id)
    sweep(3, "seed=3", "slurm=local", pid=os.getpid()).queue(None)
    with under_way(other := sweep(4, "seed=4", "slurm=local", pid=4712), cfg, 4):
        other.file.write(host="moon")
        found = status.overview(cfg).splitlines()[-3:]
    commands = [f"kill -INT {os.getpid()}", "kill -INT 4712 (on moon)", "scancel 86 87"]
    assert {line.partition(": ")[2] for line in found} == set(commands)


def test_running_jobs_of_a_continued_sweep_are_cancelled_too(cfg, sweep, queue):
    queue({"87_1", "91_1"})
    with under_way(sweep(1, "seed=1", "slurm=cluster"), cfg, 1) as run:
        run.status_file.write(scheduler_job="87_1")
        sweep(1, "seed=1", "slurm=cluster", name="second").queue("91_1")
        assert status.overview(cfg).endswith("scancel 87 91")


def test_unfinished_sweeps_are_continued_and_failed_ones_need_a_fix_first(cfg, sweep):
    for seed, (name, error) in enumerate(
        [("a", None), ("b", ValueError("x")), ("c", KeyboardInterrupt()), ("d", OSError("y"))]
    ):
        folder = Path(cfg.paths.outputs, name)
        folder.mkdir(parents=True)
        if name != "d":  # as bin/utils.sh does
            (folder / "script").write_text(f"{CONF_DIR.parent}/bin/banana/banana_viz_VIC.sh\n")
        job = sweep(0, f"seed={seed}", name=name)
        finish(job, cfg, seed) if error is None else fail(job, cfg, seed, error)
        is_failure = isinstance(error, (ValueError, OSError))
        assert (FIX in report(job.folder.parent, Path("r"))) == is_failure
    found = [
        line for line in status.overview(cfg).splitlines() if "again: " in line or "-c" in line
    ]
    script = "bin/banana/banana_viz_VIC.sh -c"
    ends = [line.partition(": ")[::2] for line in found]
    assert [end for _, end in ends] == [f"{script} c", f"{script} b", "use the same command"]
    assert [start == FIX for start, _ in ends] == [False, True, True]


# --- which experiment


def test_other_modes_with_runs_are_suggested_and_prefixed_names_are_known(cfg, tmp_path, capsys):
    quick = cfg.copy()
    quick.experiment_name = quick.compressor_of = "quick_banana_viz_VIC"
    find_run(quick, "featurizer").start(None)
    found = status.overview(cfg)
    assert "no jobs and no runs yet" in found and found.endswith("add -m quick")
    arguments = ["experiment=quick_banana_viz_VIC", f"paths.results={tmp_path}"]
    status.main([*arguments, "mode=none"])
    assert capsys.readouterr().out.startswith("quick_banana_viz_VIC: no jobs")
    with pytest.raises(SystemExit, match="2"):
        status.main(["experiment=banana_viz_VIC", "mode=quik"])
    assert "mode/quik" in capsys.readouterr().err


def test_the_script_shows_the_status_without_slow_imports(tmp_path):
    assert call("bin/status.sh").returncode == 2
    assert call("bin/status.sh", "banana_vizVIC").returncode == 2
    done = call("bin/status.sh", "banana_viz_VIC", "-m", "quick", "-a", f"paths.results={tmp_path}")
    assert done.returncode == 0 and "no runs yet" in done.stdout, done.stderr
    code = "import sys, utils.status; assert not {'torch', 'pandas', 'optuna'} & set(sys.modules)"
    assert call(sys.executable, "-c", code).returncode == 0
