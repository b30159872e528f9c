"""How an experiment stands: counts, what is not done and why, the way on."""

import contextlib
import os
import sys
import time
from pathlib import Path

import pytest
from helpers.tiny import call, compose
from omegaconf import OmegaConf

from utils import status
from utils.cluster import slurm
from utils.configs.composing import CONF_DIR
from utils.runs.identity import NOT_IDENTITY, STAGES, is_how, run_hash
from utils.runs.job_status import FILE, Trace, mark_interrupted, read_trace
from utils.runs.report import MEND, report
from utils.runs.run import Run, find_run
from utils.runs.status_file import LOST, write_state


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
        def states(*, is_of_all_users: bool) -> dict[str, str]:
            if ids is None:
                raise slurm.SlurmUnavailableError("there is none")
            return dict.fromkeys(ids, "PENDING") | {"87_9": "CANCELLED"}

        monkeypatch.setattr(slurm, "states", states)

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
    assert [row.split()[0] for row in rows[1:4:2]] == ["running", "ValueError:"]
    assert rows[1].endswith("s featurizer epoch 4/10 seed=3")  # not what is the same for all
    assert rows[2].startswith("failed") and rows[2].endswith("seed=1")
    assert rows[3] == "ValueError: first line"
    assert rows[4].startswith("interrupted") and rows[5] == "Ctrl-C"
    assert not any("seed=0" in row for row in rows)


def test_a_job_whose_process_is_gone_is_lost(cfg, tmp_path):
    folder, place = tmp_path / "outputs/x/banana_viz_VIC_1", f"paths.results={cfg.paths.results}"
    code = (
        "import os; from pathlib import Path; from utils.runs.job_status import Trace\n"
        f"with Trace(Path({str(folder / '0')!r}), 0, [{place!r}]).kept():\n"
        "    os._exit(1)"
    )
    assert call(sys.executable, "-c", code).returncode == 1
    found = lines(cfg)
    assert "1 jobs: 1 lost" in found[0] and LOST in found
    assert f"  lost: job 0:\n    {LOST}" in report(folder, Path("r"))


def test_what_ctrl_c_on_the_launcher_killed_was_interrupted(cfg, sweep):
    """Workers may be killed before they can say so; what others do, or did, is left alone."""
    finish(sweep(0, "seed=0"), cfg, 0)
    with under_way(sweep(1, "seed=1"), cfg, 1) as run:
        killed = dict(run.status())
        trace = read_trace(Path(cfg.paths.outputs, "first_1/banana_viz_VIC_1/1"))
    write_state(run.status_file, killed)
    write_state(Path(cfg.paths.outputs, "first_1/banana_viz_VIC_1/1", FILE), trace)
    assert "2 jobs: 1 lost, 1 done" in status.overview(cfg)
    with under_way(sweep(2, "seed=2"), cfg, 2):
        mark_interrupted(Path(cfg.paths.outputs, "first_1/banana_viz_VIC_1"))
        found = lines(cfg)
    assert "3 jobs: 1 running, 1 interrupted, 1 done" in found[0] and "Ctrl-C" in found
    assert found[2] == "featurizer: 1 running, 1 interrupted, 1 done"


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


HOW_IT_IS_RUN = [
    "job_id=b",
    "slurm=local",
    "slurm.gpus_per_node=1",
    "trainer.devices=2",
    "trainer.num_nodes=2",
    "trainer.accelerator=cpu",
    "hypopt=optuna",
    "hypopt.n_trials=3",
    "timeout_min=5",
    "parallel_jobs=2",
    "logger=csv",
    "on_failed=resume",
    "mode=none",
    "figures.every_n_epochs=1",
    "export.encoder=x.pt",
    "monitor_return=a",
    "queue=debug_partition",
]


def test_the_same_job_may_be_run_otherwise(cfg, sweep, tmp_path):
    other = compose(tmp_path, "experiment=banana_viz_VIC", *HOW_IT_IS_RUN)
    assert [run_hash(other, stage) for stage in STAGES] == [
        run_hash(cfg, stage) for stage in STAGES
    ]
    for i, override in enumerate(HOW_IT_IS_RUN):
        sweep(i, f"seed={i}").queue(None)
        sweep(i, f"seed={i}", override, name="second").queue(None)
    found = status.overview(cfg)
    assert f"{len(HOW_IT_IS_RUN)} jobs: " in found


def test_an_attempt_that_did_not_begin_is_known_by_its_settings(cfg, sweep):
    sweep(0, "seed=1", pid=2**22 + 1).queue(None)
    fail(sweep(1, "seed=1", name="second"), cfg, 1, ValueError("x"))
    assert "1 jobs: 1 failed" in status.overview(cfg)
    sweep(0, "seed=1", "trainer.devices=2", name="third").queue(None)
    assert "1 jobs: 1 queued" in status.overview(cfg)


def test_what_changes_runs_makes_another_job(cfg, sweep):
    settings = ("seed", "trainer.max_epochs", "distortion", "is_only_feat", "experiment")
    for setting in settings:
        assert not is_how(setting)
        sweep(0, f"{setting}=1", name=f"{setting}_1").queue(None)
        sweep(0, f"{setting}=2", name=f"{setting}_2").queue(None)
    assert "10 jobs: 10 queued" in status.overview(cfg)


def test_what_is_no_part_of_an_identity_is_how_a_job_is_run():
    assert all(is_how(".".join(path)) for path in NOT_IDENTITY)


def test_a_job_is_known_by_its_runs(cfg, sweep):
    fail(sweep(0, "seed=1"), cfg, 1, ValueError("x"))
    fail(sweep(1, "seed=2"), cfg, 2, ValueError("x"))
    finish(sweep(0, "seed=1", "distortion=VIC", name="second"), cfg, 1)  # as the experiment says
    assert "2 jobs: 1 failed, 1 done" in status.overview(cfg)


def test_a_job_of_fewer_stages_is_repaired_by_one_of_all(cfg, sweep):
    featurizer = str(find_run(cfg, STAGES[0]).results)
    trace = sweep(0, "is_only_feat=true")
    with contextlib.suppress(ValueError), trace.kept():
        trace.note(runs={STAGES[0]: featurizer})
        raise ValueError("x")
    assert "1 jobs: 1 failed" in status.overview(cfg)
    finish(sweep(0, name="second"), cfg, cfg.seed)
    assert "1 jobs: 1 done" in status.overview(cfg)
    with contextlib.suppress(ValueError), (trace := sweep(0, "is_only_feat=true", name="z")).kept():
        trace.note(runs={STAGES[0]: featurizer})
        raise ValueError("x")
    assert "2 jobs: 1 failed, 1 done" in status.overview(cfg)  # does not stand for all stages


def test_jobs_of_another_experiment_name_are_left_out(cfg, sweep):
    sweep(0, "seed=0", "experiment_name=mine").queue(None)
    other = cfg.copy()
    other.experiment_name = other.compressor_of = "mine"
    finish(sweep(1, "experiment_name=mine"), other, 1)
    finish(sweep(2), cfg, 2)
    assert "1 jobs: 1 done" in status.overview(cfg)
    assert "2 jobs: 1 queued, 1 done" in status.overview(other)


@pytest.mark.parametrize("content", [b"", b"\0\0", b'{"num": 1, "sta'])
def test_damaged_files_are_named_and_lost(cfg, sweep, content):
    fail(sweep(0, "seed=0"), cfg, 0, ValueError("x"))
    fail(sweep(1, "seed=1"), cfg, 1, ValueError("x"))
    files = [Path(cfg.paths.outputs, "first_1/banana_viz_VIC_1", str(i), FILE) for i in range(2)]
    one = cfg.copy()
    one.seed = 1
    for file in (*files, find_run(one, STAGES[0]).status_file):
        file.write_bytes(content)
    found = status.overview(cfg)
    assert "2 jobs: 2 lost" in found and "featurizer: 1 failed, 1 lost" in found
    assert all(f"{file} cannot be read" in found for file in files)
    finish(sweep(1, "seed=1"), cfg, 1)
    assert "2 jobs: 1 lost, 1 done" in status.overview(cfg)


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


def test_what_the_queue_knows_to_have_ended_does_not_wait(cfg, sweep, queue):
    sweep(0, "seed=1", "slurm=cluster").queue("87_9")
    queue(set())
    assert "1 jobs: 1 lost" in status.overview(cfg)


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


def test_a_compressor_among_the_results_of_another_experiment_is_looked_at(cfg, sweep):
    cfg.compressor_of = "other"
    with under_way(sweep(0), cfg, 0) as run:
        run.note(epoch=4, n_epochs=10)
        assert "exp_other" in run.results.parts
        found = status.overview(cfg)
    assert "1 jobs: 1 running" in found and "epoch 4/10" in found


def note_script(cfg, name, script):
    """As bin/utils.sh does."""
    folder = Path(cfg.paths.outputs, name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "script").write_text(f"{CONF_DIR.parent / script}\n")


def test_the_way_on_is_said(cfg, sweep, queue):
    for num, job_id in enumerate(("87_1", "87_3", "86")):
        sweep(num, f"seed={num}", "slurm=cluster", name="last").queue(job_id)
    queue({"87_1", "87_3", "86"})
    assert status.overview(cfg).endswith("Cancel what is under way: scancel 86 '87_[1,3]'")
    queue({"87_3"})
    assert "Run again what is not done: the same command again" in status.overview(cfg)
    note_script(cfg, "last", "bin/banana/banana_viz_VIC.sh")
    expected = "Run again what is not done: bin/banana/banana_viz_VIC.sh -c last"
    assert expected in status.overview(cfg)


def test_each_sweep_with_open_jobs_is_continued_and_no_other(cfg, sweep):
    for seed, name in enumerate(("a", "b", "c", "d")):
        note_script(cfg, name, "bin/banana/banana_viz_VIC.sh")
        if name in "bc":
            fail(sweep(0, f"seed={seed}", name=name), cfg, seed, ValueError("x"))
        else:
            finish(sweep(0, f"seed={seed}", name=name), cfg, seed)
    found = status.overview(cfg).splitlines()[-2:]
    assert [line.rpartition(" -c ")[2] for line in found] == ["b", "c"]


@pytest.mark.parametrize(
    ("error", "advice"), [(ValueError("x"), MEND), (KeyboardInterrupt(), "Run again what is not")]
)
def test_only_what_was_interrupted_goes_on_by_itself(cfg, sweep, tmp_path, error, advice):
    fail(sweep(0), cfg, 0, error)
    last = status.overview(cfg).splitlines()[-1]
    assert last.startswith(advice) and last.endswith(": the same command again")
    last = report(tmp_path / "outputs/first_1/banana_viz_VIC_1", Path("r")).splitlines()[-1]
    assert (MEND in last) == ("Finished work is kept" not in last) == (advice == MEND)


@pytest.mark.parametrize("is_a_job", [True, False])
def test_modes_that_have_runs_are_named(cfg, sweep, is_a_job):
    quick = cfg.copy()
    quick.experiment_name = quick.compressor_of = "quick_banana_viz_VIC"
    if is_a_job:
        finish(sweep(0, "mode=quick"), quick, 0)
    else:
        lose(find_run(quick, "featurizer"))
    found = status.overview(cfg)
    assert "no jobs and no runs yet" in found and found.count("There are runs") == 1
    assert found.endswith("\nThere are runs of mode quick: add -m quick")


def test_the_name_of_results_is_an_experiment_and_a_mode(tmp_path, capsys):
    status.main(["experiment=quick_banana_viz_VIC", "mode=none", f"paths.results={tmp_path}"])
    assert capsys.readouterr().out.startswith("banana_viz_VIC, mode quick: no jobs")


def test_one_mode_at_a_time(tmp_path, capsys):
    arguments = ["experiment=quick_banana_viz_VIC", "mode=dev", f"paths.results={tmp_path}"]
    with pytest.raises(SystemExit, match="2"):
        status.main(arguments)
    assert "banana_viz_VIC in mode quick, but mode=dev was given" in capsys.readouterr().err


def test_processes_and_jobs_of_slurm_are_cancelled_apart(cfg, sweep, queue):
    queue({"87_1"})
    sweep(0, "seed=0", "slurm=cluster").queue("87_1")
    with under_way(trace := sweep(1, "seed=1", "slurm=local"), cfg, 1):
        trace.note(scheduler_job="4711")
        with under_way(trace := sweep(2, "seed=2", "slurm=local"), cfg, 2):
            trace.note(scheduler_job="4712", host="moon")
            found = status.overview(cfg).splitlines()[-3:]
    commands = ["kill -INT 4711", "kill -INT 4712 (on moon)", "scancel '87_[1]'"]
    assert sorted(found) == [f"Cancel what is under way: {command}" for command in commands]


@pytest.mark.parametrize("is_of_all_users", [True, False])
def test_slurm_says_how_jobs_stand(monkeypatch, tmp_path, is_of_all_users):
    squeue = tmp_path / "squeue"
    others = 'case "$*" in *--user*) ;; *) echo "90|X";; esac'
    squeue.write_text(f'#!/bin/sh\necho "87_3|PENDING"\n{others}\n')
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    others = {"90": "X"} if is_of_all_users else {}
    found = slurm.states(is_of_all_users=is_of_all_users)
    assert found == {"87_3": "PENDING"} | others
    squeue.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(slurm.SlurmUnavailableError):
        slurm.states()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(slurm.SlurmUnavailableError, match="squeue"):
        slurm.states()


def test_a_thousand_runs_take_no_time(cfg, sweep, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)  # of the files made here
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
