"""Scripts give the same results on a real Slurm cluster as on this machine without Slurm."""

import re
import sys

import pytest
from helpers.slurm_cluster import (
    call_in,
    copy_project,
    jobs,
    metrics_of_runs,
    slurm,
    statuses,
    wait_until,
)

from utils.cluster import slurm_queries

pytest_plugins = ["helpers.slurm_fixtures"]
pytestmark = pytest.mark.slurm

ON_SLURM = ["-s", "single_node", "-m", "quick"]
SHORT = (
    "trainer.max_epochs=1 trainer_pred.max_epochs=1 logger=none "
    "data_feat.kwargs.n_train=102400 data_pred.kwargs.n_train=102400"
)


def assert_complete(project, n_jobs: int) -> None:
    """Check that every job and run is done, both on disk and according to Slurm."""
    assert [job["state"] for job in jobs(project)] == ["done"] * n_jobs
    states = [status["state"] for status in statuses(project).values()]
    assert states == ["done"] * 3 * n_jobs
    job_ids = [job["scheduler_job"] for job in jobs(project)]
    assert len(set(job_ids)) == n_jobs
    wait_until(
        lambda: {slurm_queries.states().get(job_id) for job_id in job_ids} == {"COMPLETED"},
        seconds=30,
        what=f"squeue says that {job_ids} are COMPLETED",
    )


def test_a_script_with_wait_has_the_results_of_a_run_without_slurm(project, tmp_path):
    script = "bin/banana/banana_viz_VIC.sh"
    done = call_in(project, script, *ON_SLURM, "--wait", "-a", SHORT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 jobs done" in done.stdout
    assert_complete(project, n_jobs=2)
    results = project / "results" / "exp_quick_banana_viz_VIC"
    assert (results / "summarized_metrics_merged.csv").is_file()
    assert (results / "summary.md").is_file()
    assert list(results.rglob("quantization*.png"))

    direct = copy_project(tmp_path / "direct")
    settings = ["experiment=banana_viz_VIC", "mode=quick", "distortion=VIC", *SHORT.split()]
    done = call_in(direct, sys.executable, "main.py", *settings)
    assert done.returncode == 0, done.stdout + done.stderr
    expected = metrics_of_runs(direct)
    found = metrics_of_runs(project)
    assert len(expected) == 3 and len(found) == 6
    assert {run: found[run] for run in expected} == expected


def test_a_script_returns_at_once_and_its_sweep_ends_in_the_background(project):
    script = "bin/banana/banana_RD.sh"
    fewer = "seed=1,2 featurizer.loss.beta=0.01,0.1,1"  # than the 30 jobs of the quick mode
    done = call_in(project, script, *ON_SLURM, "-a", SHORT, "-a", fewer, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Queued 12 jobs" in done.stdout
    assert "bin/status.sh banana_RD -m quick" in done.stdout
    (job_id,) = (folder.name for folder in project.glob("outputs/*"))
    assert f"-c {job_id}" in done.stdout

    def counts() -> dict[str, int]:
        status = call_in(project, "bin/status.sh", "banana_RD", "-m", "quick")
        assert status.returncode == 0, status.stdout + status.stderr
        return {state: int(n) for n, state in re.findall(r"(\d+) (\w+)", status.stdout)}

    assert counts().get("failed", 0) == 0
    results = project / "results" / "exp_quick_banana_RD"
    table = results / "summarized_metrics_merged.csv"
    wait_until(table.is_file, seconds=1200, what="a table")
    wait_until(lambda: list(results.rglob("*RD_curve*.png")), seconds=120, what="a figure")
    assert_complete(project, n_jobs=12)
    assert counts().get("done")
    assert slurm("squeue", "-h", "-n", "quick_banana_RD") == ""
