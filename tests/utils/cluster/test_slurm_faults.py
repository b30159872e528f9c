"""On a real Slurm cluster, killed, preempted and failing jobs do not change results of sweeps."""

import sys
from collections import Counter
from pathlib import Path

import pytest
from helpers.slurm_cluster import (
    START,
    call_in,
    copy_project,
    jobs,
    kill,
    metrics_of_runs,
    processes_of,
    slurm,
    slurmd,
    started_in,
    statuses,
    wait_until,
)
from helpers.tiny import call

pytest_plugins = ["helpers.slurm_fixtures"]
pytestmark = pytest.mark.slurm_slow

SCRIPT = "bin/banana/banana_RD.sh"
# Two jobs at a time, however large the node is.
ON_SLURM = [SCRIPT, "-s", "single_node", "-m", "quick", "--wait", "-a", "slurm.array_parallelism=2"]
# A run of about 15 seconds with many short epochs.
SETTINGS = (
    "distortion=VIC featurizer.loss.beta=0.1 seed=1 trainer.max_epochs=8 trainer_pred.max_epochs=2 "
    "data_feat.kwargs.n_train=204800 data_pred.kwargs.n_train=102400"
)
N_JOBS = 20


def without_slurm(folder: Path, settings: str) -> dict[str, dict[str, float]]:
    """Metrics of the same runs without interruptions, computed on this machine."""
    project = copy_project(folder)
    command = [sys.executable, "main.py", "experiment=banana_RD", "mode=quick", "logger=none"]
    call_in(project, *command, *SETTINGS.split(), *settings.split(), timeout=1800)
    return metrics_of_runs(project)


# --- jobs that end before their time


def test_a_sweep_with_many_accidents_has_the_results_of_one_without(project, tmp_path):
    z_dims = "encoder.z_dim=" + ",".join(map(str, [*range(1, N_JOBS), -1]))  # -1 cannot be built
    settings = f"{SETTINGS} logger=none checkpoint.every_minutes=0 {z_dims}"
    command = [*ON_SLURM, "-a", settings]
    with started_in(project, *command) as script:
        accidents = Accidents(project)
        killed = [accidents.kill_process(), accidents.cancel()]
        preempted = [accidents.send_usr2(), accidents.preempt()]
        failed_with_node = accidents.fail_node()
        killed.append(accidents.kill_process())
        assert len({*killed, *preempted, *failed_with_node}) == 7
        output, _ = script.communicate(timeout=3600)
    assert script.returncode == 1, output
    # preempted jobs, and those ended by the node failure, resumed automatically
    restarted = {job["num"] for job in jobs(project) if job["restarts"]}
    assert restarted == {*preempted, *failed_with_node}
    assert f"{N_JOBS - 4} of {N_JOBS} jobs done" in output
    assert "failed: job 19 encoder.z_dim=-1" in output

    (job_id,) = (folder.name for folder in project.glob("outputs/*"))
    continued = call_in(project, SCRIPT, "--wait", "-c", job_id)
    assert continued.returncode == 1, continued.stdout
    assert f"{N_JOBS - 1} of {N_JOBS} jobs done" in continued.stdout
    assert "failed: job 19 encoder.z_dim=-1" in continued.stdout
    states = Counter(status["state"] for status in statuses(project).values())
    assert states == {"done": 3 * (N_JOBS - 1), "failed": 1}

    expected = without_slurm(tmp_path / "direct", z_dims)
    assert len(expected) == 3 * (N_JOBS - 1)
    assert metrics_of_runs(project) == expected


class Accidents:
    """Accidents that befall jobs in training, at most one per job.

    Each returns the number of the job that it hit; `fail_node` returns two.
    """

    def __init__(self, project: Path):
        self._project = project
        self._hit: set[int] = set()

    def kill_process(self) -> int:
        job = self._in_training(1)[0]
        kill([job["pid"]])
        return self._note(job)

    def cancel(self) -> int:
        job = self._in_training(1)[0]
        slurm("scancel", job["scheduler_job"])
        return self._note(job)

    def send_usr2(self) -> int:
        """Send the signal that the cluster sends before it preempts a job."""
        job = self._in_training(1)[0]
        # scancel reports a failure if the job is requeued before it returns
        call("scancel", "--signal=USR2", job["scheduler_job"])
        return self._note(job)

    def preempt(self) -> int:
        """A job in the partition `urgent` takes all but one CPU; Slurm selects the victim."""
        self._in_training(2)
        n_cpus = int(slurm("sinfo", "-h", "-p", "urgent", "-o", "%c"))
        slurm("srun", "-p", "urgent", "-c", str(n_cpus - 1), "--mem=1G", "true")
        job = wait_until(self._interrupted, seconds=120, what="the status of the preempted job")
        return self._note(job)

    def _interrupted(self) -> dict | None:
        """A job that has recorded an interruption we have not yet seen."""
        ended = (job for job in jobs(self._project) if job["state"] == "interrupted")
        return next((job for job in ended if job["num"] not in self._hit), None)

    def fail_node(self) -> list[int]:
        """The node fails while it runs two jobs, then comes back."""
        both = self._in_training(2)
        kill([slurmd(), *processes_of(job["scheduler_job"] for job in both)])
        wait_until(
            lambda: "down" in slurm("sinfo", "-hN", "-p", "local", "-o", "%T"),
            seconds=120,
            what="Slurm sees that the node is down",
        )
        done = call(START)
        assert done.returncode == 0, done.stdout + done.stderr
        return [self._note(job) for job in both]

    def _in_training(self, n_jobs: int) -> list[dict]:
        """Jobs that have had no accident and have saved their first epoch."""

        def found() -> list[dict]:
            running = [job for job in jobs(self._project) if job["state"] == "running"]
            return [j for j in running if j["num"] not in self._hit and self._is_in_training(j)]

        what = f"{n_jobs} jobs in training"
        return wait_until(lambda: len(f := found()) >= n_jobs and f, seconds=300, what=what)

    def _is_in_training(self, job: dict) -> bool:
        if "runs" not in job:
            return False
        results = Path(job["runs"]["featurizer"])
        work = self._project / "pretrained" / results.relative_to("results")
        is_done = (self._project / results / "results_featurizer.csv").exists()
        return (work / "last.ckpt").is_file() and not is_done

    def _note(self, job: dict) -> int:
        self._hit.add(job["num"])
        return job["num"]


def test_a_run_that_reaches_its_time_limit_goes_on(project, tmp_path, monkeypatch):
    # it keeps its W&B runs, and its results are those of a run without a limit
    monkeypatch.setenv("WANDB_MODE", "offline")
    long = "trainer.max_epochs=50"
    limit = ["-t", "1", "-a", "slurm.signal_delay_s=5", "-a", "logger=wandb"]
    done = call_in(project, *ON_SLURM, "-a", f"{SETTINGS} {long}", *limit)
    assert done.returncode == 0, done.stdout + done.stderr
    (job,) = jobs(project)
    assert job["state"] == "done" and job["restarts"] > 0
    wandb_ids = Counter(
        folder.name.split("-", maxsplit=3)[3]
        for folder in project.glob("logs/**/offline-run-*")
        if folder.is_dir() and "aggregate" not in folder.name
    )
    assert len(wandb_ids) == 3 and max(wandb_ids.values()) > 1
    assert metrics_of_runs(project) == without_slurm(tmp_path / "direct", long)
