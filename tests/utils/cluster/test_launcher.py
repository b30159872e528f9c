"""Submission of jobs, their results, and lost jobs.

Jobs are real processes that submitit's local executor starts. Slurm's commands are small scripts
here; test_slurm.py uses a real Slurm.
"""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import cloudpickle
import pytest
from helpers.tiny import ROOT
from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, RunMode

from utils.cluster import launcher
from utils.cluster.sweep_job import JobError, SweepJob, compose_jobs
from utils.runs.experiment_status import report
from utils.runs.status_file import read_job

CONFIG = """
x: 1
y: from the start
hydra:
  sweep: {dir: %s, subdir: '${hydra.job.num}'}
  job: {name: tiny}
"""
LOCAL = {"name": "local", "executor": "local", "array_parallelism": 4, "timeout_min": 5}
CLUSTER = {"name": "moon", "executor": "slurm", "default_partition": "crater", "timeout_min": 5}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(launcher, "POLL_SECONDS", {"local": 0.05, "slurm": 0.05})
    monkeypatch.setattr(launcher, "GRACE_SECONDS", 0.3)


@pytest.fixture
def make_jobs(tmp_path) -> Callable[..., list[SweepJob]]:
    """Jobs of a sweep over `x`, which Hydra composes from a file in `tmp_path`."""

    def make(task: Callable, *values: object) -> list[SweepJob]:
        (tmp_path / "tiny.yaml").write_text(CONFIG % (tmp_path / "sweep"))
        with initialize_config_dir(str(tmp_path), version_base="1.3"):
            hydra = GlobalHydra.instance().hydra
            config = hydra.compose_config("tiny", [], run_mode=RunMode.MULTIRUN)
            context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks())
            return compose_jobs(
                [[f"x={value}"] for value in values], 0, context=context, task=task, config=config
            )

    return make


def run(tmp_path: Path, jobs: list[SweepJob], **options: object) -> list[JobReturn]:
    return launcher.run_jobs(jobs, LOCAL | options, sweep_dir=tmp_path / "sweep")


def job_status(tmp_path: Path, num: int) -> dict:
    return read_job(tmp_path / f"sweep/{num}")


def error_of(job: JobReturn) -> str:
    assert job.status == JobStatus.FAILED
    with pytest.raises(JobError) as error:
        _ = job.return_value
    return str(error.value)


# --- processes on this machine


def test_a_job_fails_alone_and_array_parallelism_jobs_run_at_once(tmp_path, make_jobs, capsys):
    (tmp_path / "gone_later.py").write_text("class Result: pass\n")
    folder = str(tmp_path)

    def task(cfg):
        import sys
        import time
        from pathlib import Path

        if cfg.x == 2:
            raise ValueError("two is no good")
        if cfg.x == 3:
            os.kill(os.getpid(), 9)
        if cfg.x == 4:
            sys.path.insert(0, folder)
            import gone_later

            return gone_later.Result()  # which cannot be unpickled here
        running = Path(folder, f"running_{cfg.x}")
        running.touch()
        time.sleep(0.3)
        n_running = len(list(Path(folder).glob("running_*")))
        running.unlink()
        return n_running

    jobs = make_jobs(task, 1, 2, 3, 4, 5, 6)
    first, failed, lost, unreadable, *others = run(tmp_path, jobs, array_parallelism=2)
    assert {job.return_value for job in (first, *others)} <= {1, 2}
    assert re.match(r"job 1 \(\d+\): ValueError: two is no good; log: .*\.err", error_of(failed))
    assert re.match(r"job 2 \(\d+\): .*; log: .*\.err", error_of(lost))
    assert "gone_later" in error_of(unreadable)
    assert failed.overrides == ["x=2"]
    states = [job_status(tmp_path, num)["state"] for num in range(5)]
    assert states == ["queued", "failed", "lost", "failed", "queued"]  # the jobs record the rest
    assert all(job_status(tmp_path, num)["log"].endswith(".err") for num in (1, 2, 3))
    assert "ValueError: two is no good" in report(tmp_path / "sweep", Path("results"))
    assert capsys.readouterr().out.startswith("Queued 6 jobs")  # for bin/utils.sh


@pytest.fixture
def ctrl_c():
    """Let Ctrl-C raise an error even if the tests run in the background."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def test_ctrl_c_ends_local_jobs(tmp_path, make_jobs, monkeypatch, ctrl_c):
    main_process, folder = os.getpid(), tmp_path

    def task(cfg):
        import time

        (folder / "pid").write_text(str(os.getpid()))
        os.kill(main_process, signal.SIGINT)
        time.sleep(60)

    monkeypatch.setattr(launcher, "GRACE_SECONDS", 30)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, make_jobs(task, 1))
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_requeued_job_has_the_config_and_folder_of_its_submission(
    tmp_path, make_jobs, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "somewhere")

    def task(cfg):
        import os
        import signal
        from pathlib import Path

        from hydra.core.hydra_config import HydraConfig

        import utils

        starts = Path(HydraConfig.get().runtime.output_dir, "starts")
        with starts.open("a") as file:
            file.write(cfg.y + "\n")
        if len(starts.read_text().splitlines()) == 1:
            os.kill(os.getpid(), signal.SIGUSR2)  # as before a preemption
        return HydraConfig.get().job.num, utils.__file__, os.environ["PYTHONPATH"], os.getcwd()

    jobs = make_jobs(task, 1, 2)
    (tmp_path / "tiny.yaml").write_text("y: edited")
    for num, job in enumerate(run(tmp_path, jobs)):
        found_num, module, path, folder = job.return_value
        assert found_num == num and folder == str(tmp_path)
        starts = tmp_path / f"sweep/{num}/starts"
        assert starts.read_text() == "from the start\nfrom the start\n"
        assert Path(module) == ROOT / "utils" / "__init__.py"
        assert path.split(os.pathsep)[0] == str(ROOT)
    assert os.environ["PYTHONPATH"] == "somewhere"


# --- Slurm


def result(tmp_path: Path, job_id: str, content: object, task: int = 0) -> None:
    folder = tmp_path / "sweep" / ".submitit" / job_id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{job_id}_{task}_result.pkl").write_bytes(cloudpickle.dumps(content))


def returned(value: object) -> tuple[str, JobReturn]:
    done = JobReturn(overrides=[], status=JobStatus.COMPLETED)
    done.return_value = value
    return "success", done


def submit(tmp_path: Path, jobs: list[SweepJob], **options: object) -> list[JobReturn]:
    return launcher.run_jobs(jobs, CLUSTER | options, sweep_dir=tmp_path / "sweep")


def test_a_sweep_is_one_array_and_its_results_come_back(tmp_path, make_jobs, fake, capsys):
    fake("sbatch", f"cp $1 {tmp_path}/script", "echo Submitted batch job 87")
    fake("squeue", "for i in 0 1 2; do echo 87_$i'|COMPLETED'; done")
    for i in range(3):
        result(tmp_path, f"87_{i}", returned(i))
    done = submit(tmp_path, make_jobs(None, 1, 2, 3), partition="crater", max_num_timeout=7)
    assert [job.return_value for job in done] == [0, 1, 2]
    assert capsys.readouterr().out == "Queued 3 jobs: 87_[0-2]\n"
    script = (tmp_path / "script").read_text()
    assert "--partition=crater" in script and "--array=0-2%3" in script
    statuses = [job_status(tmp_path, i) for i in range(3)]
    assert [status["scheduler_job"] for status in statuses] == ["87_0", "87_1", "87_2"]
    assert {status["state"] for status in statuses} == {"queued"}


def test_a_job_that_left_the_queue_is_lost(tmp_path, make_jobs, fake):
    fake("sbatch", "echo Submitted batch job 87")
    fake("squeue", "echo '87_1|CANCELLED'")
    jobs = make_jobs(None, 1, 2, 3, 4)
    result(tmp_path, "87_2", returned("still there"))
    result(tmp_path, "87_3", ("error", "Traceback\nValueError: rank 1 is unwell"), task=1)
    gone, cancelled, done, of_rank_1 = submit(tmp_path, jobs, tasks_per_node=2)
    assert done.return_value == "still there"
    assert re.match(r"job 0 \(87_0\).*; log: .*87_0", error_of(gone))
    assert re.match(r"job 1 \(87_1\).*: CANCELLED; log", error_of(cancelled))
    assert "ValueError: rank 1 is unwell" in error_of(of_rank_1)
    states = [job_status(tmp_path, num)["state"] for num in range(4)]
    assert states == ["lost", "lost", "queued", "failed"]


def test_the_launcher_waits_for_a_requeued_job(tmp_path, make_jobs, fake):
    """The job has an error but is pending; it leaves the queue, squeue fails, and it is done."""
    result(tmp_path, "87", ("error", "RuntimeError: Connection closed by peer"))
    result(tmp_path, "done", returned("there"))
    file, done = (tmp_path / f"sweep/.submitit/{i}/{i}_0_result.pkl" for i in ("87", "done"))
    fake("sbatch", "echo Submitted batch job 87")
    fake(
        "squeue",
        f"n=$(ls {tmp_path} | grep -c asked_); touch {tmp_path}/asked_$n",
        f"case $n in 0) ;; 1) rm {file};; 2|11) exit 0;; 12) cp {done} {file};;",
        "[3-9]|10) echo busy >&2; exit 1;; *) exit 0;; esac",
        "echo '87|PENDING'",
    )
    (job,) = submit(tmp_path, make_jobs(None, 1))
    assert job.return_value == "there"


def test_a_rejected_sweep_is_one_line_of_error(tmp_path, make_jobs, fake):
    fake("sbatch", "echo 'sbatch: error: QOSMaxSubmitJobPerUserLimit' >&2; echo no >&2; exit 1")
    with pytest.raises(JobError, match="^[^\n]*QOSMaxSubmit[^\n]*$"):
        submit(tmp_path, make_jobs(None, 1, 2))


def test_ctrl_c_leaves_jobs_in_the_queue_and_says_how_to_cancel_them(
    tmp_path, make_jobs, fake, capsys, ctrl_c
):
    fake("sbatch", "echo Submitted batch job 87")
    fake("squeue", f"kill -INT {os.getpid()}", "sleep 5")
    with pytest.raises(KeyboardInterrupt):
        submit(tmp_path, make_jobs(None, 1, 2, 3))
    assert "scancel 87\n" in capsys.readouterr().out
    assert job_status(tmp_path, 1)["scheduler_job"] == "87_1"
