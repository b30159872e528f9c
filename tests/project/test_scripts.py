"""The scripts in bin/: flags, errors, what they call, exit status.

Most tests run the real scripts in a copy of the project in which a stub replaces Python and records
how it is called.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from helpers.interruptions import wait_until
from helpers.slurm_cluster import copy_project
from helpers.tiny import ROOT, call

from utils.cluster.sweep import NONE_DONE
from utils.runs.experiment_status import FIX

SCRIPTS = sorted(
    str(path.relative_to(ROOT)) for path in (*ROOT.glob("bin/*.sh"), *ROOT.glob("bin/*/*.sh"))
)
EXPERIMENTS = [s for s in SCRIPTS if "utils.sh" in (ROOT / s).read_text() and "utils" not in s]
SLOW = ("bin/benchmark.sh", "bin/reproduce.sh")  # they import torch
# The stub fails for calls that contain the text in the file `failing`, with the status in `status`.
# On a cluster it queues jobs and waits for them while the file `running` exists.
STUB = """#!/usr/bin/env bash
if [ "$1" = -c ]; then exec python3 "$@"; fi
printf '%s\\n' "$*" >>calls
if [ -f sleeping ]; then sleep 20; fi
if [ -f failing ] && [[ "$*" == *"$(cat failing)"* ]]; then
  echo "This fails"
  exit "$(cat status 2>/dev/null || echo 1)"
fi
if [[ "$*" == main.py* && "$*" != *slurm=none* ]]; then
  echo "Queued 2 jobs: 87_[0-1]"
  trap -p INT  # prints a line if SIGINT is ignored
  while [ -f running ]; do sleep 0.02; done
  echo "2 of 2 jobs done"
fi
"""


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """Scripts, configs and a stub for Python, copied to a folder with an awkward name."""
    monkeypatch.setenv("LC_ALL", "C")
    root = tmp_path / "my projét (1)"
    for name in ("bin", "conf"):
        shutil.copytree(ROOT / name, root / name)
    python = root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(STUB)
    python.chmod(0o755)
    return root


def calls(project: Path) -> list[str]:
    """Arguments of each call to Python, except the job id."""
    file = project / "calls"
    lines = file.read_text().splitlines() if file.exists() else []
    return [re.sub(r" job_id=\S+", "", line) for line in lines]


def job_ids(project: Path) -> list[str]:
    return sorted(folder.name for folder in project.glob("outputs/*"))


def test_every_script_has_help_rejects_unknown_flags_and_runs_existing_experiments(project):
    table = (ROOT / "bin" / "README.md").read_text()
    flags = ("-m MODE", "-s NAME", "-t MINUTES", "-a", "--wait", "-c JOB_ID", "-v PREFIX")
    for script in EXPERIMENTS:
        assert f"`{script}`" in table, (
            f"bin/README.md has no row of running times for {script}; to print it: python -m "
            f"utils.benchmarks --only experiments --match {Path(script).stem}"
        )
        done = call(str(project / script), "-h")
        assert done.returncode == 0 and done.stderr == "", script
        assert all(flag in done.stdout for flag in flags), script
        done = call(str(project / script), "-x")
        assert done.returncode == 2 and "-x" in done.stderr, script
        assert calls(project) == [], script
        done = call(str(project / script))
        assert done.returncode == 0, done.stderr
        found = calls(project)
        words = [word for line in found for word in line.split()]
        names = {word.split("=")[1] for word in words if word.startswith("experiment=")}
        assert all((ROOT / f"conf/experiment/{name}.yaml").is_file() for name in names), script
        programs = [line.split()[0] for line in found]
        # scripts that only download data, save weights or compress call modules
        assert names or set(programs) == {"-m"}, script
        assert programs[0] in ("main.py", "-m")
        assert programs[-1] == "aggregate.py" or set(programs) == {"-m"}, script
        (project / "calls").unlink()


@pytest.mark.parametrize(
    "script", ["bin/setup.sh", *(pytest.param(s, marks=pytest.mark.slow) for s in SLOW)]
)
def test_the_other_scripts_have_help_too(script):
    done = call(script, "-h")
    assert done.returncode == 0 and "--" in done.stdout


def test_wrong_flags_end_with_status_2_and_start_nothing(project):
    for arguments, expected in (
        (["-m", "fast"], ["quick", "debug_cpu", "-m fast"]),
        (["-s", "moon"], ["none", "-s moon"]),
        (["-t", "soon"], ["minutes", "soon"]),
        (["-c", "yesterday"], ["-c yesterday", "outputs/"]),
        (["-c", "yesterday", "-m", "quick"], []),
        (["-v", "fast"], ["quick", "-v fast"]),
        (["--hold"], ["--hold", "-h"]),
        (["-m"], ["-m"]),
        (["-c", ""], ["-c"]),
        (["-t", ""], ["-t"]),
        (["quick"], ["quick", "-h"]),
    ):
        done = call(str(project / "bin/test.sh"), *arguments)
        assert done.returncode == 2 and done.stdout == "", arguments
        assert all(text in done.stderr for text in expected), done.stderr
        assert calls(project) == [] and job_ids(project) == [], arguments


def test_flags_become_settings(project):
    settings = ["-m", "quick", "-t", "30", "-a", "seed=1,2  trainer.max_epochs=3", "-a", "goal=x"]
    cluster = ["-s", "single_node", "--wait", "-a", "slurm.mem_gb=64 +slurm.nodelist=a"]
    done = call(str(project / "bin/test.sh"), *settings, *cluster)
    assert done.returncode == 0, done.stderr
    main, aggregate = calls(project)
    overrides = "seed=1,2 trainer.max_epochs=3 goal=x"
    jobs_only = "slurm=single_node timeout_min=30", "slurm.mem_gb=64 +slurm.nodelist=a"
    assert main == f"main.py experiment=test mode=quick {jobs_only[0]} {overrides} {jobs_only[1]}"
    # the same settings, so that it finds the results
    assert aggregate == f"aggregate.py experiment=test mode=quick {overrides}"


def test_a_sweep_continues_with_the_same_arguments_from_any_folder(project):
    folder = {"cwd": project / "bin" / "banana"}
    assert call("./banana_RD.sh", "-m", "quick", "-a", "seed=3 goal=x", **folder).returncode == 0
    (first,) = job_ids(project)
    done = call("bash", "banana_RD.sh", "-c", first, **folder)
    assert done.returncode == 0, done.stderr
    (second,) = set(job_ids(project)) - {first}
    assert (project / "outputs" / second / "continues").read_text() == f"{first}\n"
    assert call(str(project / "bin/banana/banana_RD.sh"), "-c", second).returncode == 0
    assert calls(project) == calls(project)[:2] * 3
    done = call(str(project / "bin/test.sh"), "-c", first)  # another script's sweep
    assert done.returncode == 2 and "banana_RD.sh" in done.stderr
    assert len(calls(project)) == 6 and len(job_ids(project)) == 3


def test_values_may_have_spaces(project):
    python = project / ".venv" / "bin" / "python"
    python.write_text("#!/usr/bin/env bash\nprintf '%s\\n' \"$@\" >>words\n")
    settings = "goal=two words  +paths.mine=/a b/c ~seed data@data_feat=mnist"
    assert call(str(project / "bin/test.sh"), "-a", settings).returncode == 0
    words = (project / "words").read_text().splitlines()
    assert words[-4:] == ["goal=two words", "+paths.mine=/a b/c", "~seed", "data@data_feat=mnist"]


def test_a_sweep_continues_by_its_slurm_id_too(project):
    for name, script, jobs in (
        ("2026-01-01_old", "none", ["87_3", "9"]),
        ("2026-01-02_new", "quick", ["87_3", "87_1", "9"]),
        ("2026-01-03_other", "debug", ["870", "8_7", "99"]),
    ):
        for i, job in enumerate(jobs):
            folder = project / "outputs" / name / "test_1" / str(i)
            folder.mkdir(parents=True)
            (folder / "job.json").write_text(f'{{\n  "scheduler_job": "{job}",\n}}\n')
        (project / "outputs" / name / "arguments").write_bytes(f"-m\0{script}\0".encode())
    for slurm_id in ("87", "87_3", "9"):
        done = call(str(project / "bin/test.sh"), "-c", slurm_id)
        assert done.returncode == 0 and "2026-01-02_new" in done.stdout, done.stderr
    assert all("mode=quick" in line for line in calls(project))


def test_figures_only(project):
    """Figures are drawn on this machine even if the jobs run on a cluster."""
    for arguments, mode in (
        (["quick"], "quick"),
        (["quick_"], "quick"),
        (["", "-s", "vector"], "none"),
    ):
        assert call(str(project / "bin/test.sh"), "-v", *arguments).returncode == 0
        assert calls(project)[-1] == f"aggregate.py experiment=test mode={mode}"
    assert len(calls(project)) == 3 and job_ids(project) == []


@pytest.mark.parametrize(
    ("failing", "status", "expected", "n_calls"),
    [
        ("main.py", 1, 1, 3),
        ("aggregate.py", 1, 1, 3),
        # no tables without a finished job: tables of earlier runs would look like results
        ("main.py", NONE_DONE, NONE_DONE, 2),
        ("digits_classical", NONE_DONE, 1, 3),
        ("main.py experiment=digits_viz", NONE_DONE, 1, 3),
    ],
)
def test_a_failure_is_the_exit_status_and_the_rest_is_done(
    project, failing, status, expected, n_calls
):
    (project / "failing").write_text(failing)
    (project / "status").write_text(str(status))
    done = call(str(project / "bin/digits/digits_viz_VIC.sh"), "-m", "quick", "-a", "goal=x")
    assert done.returncode == expected and len(calls(project)) == n_calls
    assert ("-v \"quick\" -a 'goal=x'" in done.stdout) == (n_calls == 2)


def test_the_worst_failure_determines_the_exit_status(project):
    """This also holds for scripts that a script calls."""
    (project / "failing").write_text("experiment=clip_bottleneck_pretrain")
    (project / "status").write_text("4")
    done = call(str(project / "bin/clip/main_linear.sh"))
    assert done.returncode == 4
    assert "aggregate.py experiment=clip_bottleneck_linear_eval" in calls(project)[-1]


@pytest.mark.parametrize("failing", [None, "utils.fetch_data"])
def test_the_clip_experiments_continue_without_a_missing_data_set(project, failing):
    if failing:
        (project / "failing").write_text(failing)
    done = call(str(project / "bin/clip/main_small.sh"), "-a", "paths.data=d")
    assert done.returncode == (1 if failing else 0)
    first, *others = calls(project)
    assert first.startswith(
        "-m utils.fetch_data experiment=clip_download_data mode=none paths.data=d"
    )
    (downloads,) = [word for word in first.split() if word.startswith("data@data_feat=")]
    assert "=coco,stl10," in downloads and "imagenet" not in downloads
    assert [line.split()[0] for line in others] == ["main.py", "aggregate.py"] * 2


# --- on a cluster


@pytest.fixture
def running(project):
    """A file that keeps the cluster's jobs running until it is deleted."""
    file = project / "running"
    file.touch()
    yield file
    file.unlink(missing_ok=True)


def test_the_script_returns_once_jobs_are_queued(project, running):
    settings = ["-m", "quick", "-t", "30", "-a", "goal=what's left"]
    done = call(str(project / "bin/test.sh"), "-s", "single_node", *settings)
    assert done.returncode == 0 and done.stderr == ""
    (job_id,) = job_ids(project)
    main = "main.py experiment=test mode=quick slurm=single_node timeout_min=30 goal=what's left"
    assert calls(project) == [main]
    assert "Queued 2 jobs: 87_[0-1]\n" in done.stdout and job_id in done.stdout
    lines = [re.split(r" {2,}", line.strip()) for line in done.stdout.splitlines()]
    commands = dict(line for line in lines if len(line) == 2)
    assert commands["log"] == f"tail -f outputs/{job_id}/log"
    assert commands["continue"].endswith(f" -c {job_id}")
    expected = "experiment=test mode=quick goal=what's left"
    for name, program in (("status", "-m utils.status"), ("figures now", "aggregate.py")):
        assert call("bash", "-c", commands[name], cwd=project).returncode == 0
        assert calls(project)[-1] == f"{program} {expected}"
    running.unlink()
    wait_until(lambda: len(calls(project)) == 4)  # the driver continues and draws
    assert calls(project)[3] == f"aggregate.py {expected}"
    wait_until(lambda: "2 of 2 jobs done" in (project / "outputs" / job_id / "log").read_text())
    assert job_ids(project) == [job_id] and f"job_id={job_id}" in (project / "calls").read_text()


def test_the_driver_outlives_the_terminal(project, running):
    """Its jobs do not ignore SIGINT, which cancels them."""
    script = str(project / "bin/test.sh")
    with subprocess.Popen(
        [script, "-s", "local"], start_new_session=True, stdout=subprocess.DEVNULL
    ) as process:
        assert process.wait(10) == 0
        with pytest.raises(ProcessLookupError):  # none of its processes is left in the session
            os.killpg(process.pid, signal.SIGHUP)
    running.unlink()
    wait_until(lambda: len(calls(project)) == 2)
    (log,) = project.glob("outputs/*/log")
    assert "2 of 2 jobs done" in log.read_text() and "SIGINT" not in log.read_text()


def test_with_wait_the_exit_status_is_that_of_the_jobs(project):
    (project / "failing").write_text("main.py")
    done = call(str(project / "bin/test.sh"), "--wait", "-s", "local")
    assert done.returncode == 1 and len(calls(project)) == 2
    assert not list(project.glob("outputs/*/log"))


@pytest.mark.parametrize(("status", "n_calls"), [(2, 1), (1, 2)])
def test_errors_before_jobs_are_queued_are_shown(project, status, n_calls):
    (project / "failing").write_text("main.py")
    (project / "status").write_text(str(status))
    done = call(str(project / "bin/test.sh"), "-s", "vector")
    assert done.returncode == status and "This fails" in done.stderr
    assert len(calls(project)) == n_calls


def test_a_sweep_on_a_cluster_continues_there(project):
    script = str(project / "bin/test.sh")
    assert call(script, "-s", "local", "-m", "quick").returncode == 0
    wait_until(lambda: len(calls(project)) == 2)
    done = call(script, "-c", *job_ids(project), "--wait")
    assert done.returncode == 0, done.stderr
    assert calls(project)[2:] == calls(project)[:2]
    done = call(script, "-c", job_ids(project)[-1])
    assert done.returncode == 0 and "Queued" in done.stdout
    wait_until(lambda: len(calls(project)) == 6)


def test_nested_scripts_run_one_after_the_other(project, running):
    done = call(str(project / "bin/clip/main_linear.sh"), "-s", "single_node", "-m", "quick")
    assert done.returncode == 0, done.stderr
    assert len(calls(project)) == 1 and "pretrain mode=quick slurm=single_node" in calls(project)[0]
    running.unlink()
    wait_until(lambda: len(calls(project)) == 4)
    programs = [line.split()[0] for line in calls(project)]
    assert programs == ["main.py", "aggregate.py"] * 2
    assert len(list(project.glob("outputs/*/log"))) == 1


@pytest.mark.parametrize(
    ("options", "number"), [([], signal.SIGTERM), (["-s", "vector"], signal.SIGINT)]
)
def test_a_signal_ends_the_script(project, options, number):
    (project / "sleeping").touch()
    with subprocess.Popen(
        [str(project / "bin/test.sh"), *options],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        # a shell's background processes ignore SIGINT, and so would their children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        wait_until(lambda: calls(project))
        os.killpg(process.pid, number)
        assert process.wait(10) == 130
    (project / "sleeping").unlink()
    time.sleep(0.2)
    assert len(calls(project)) == 1


# --- without stubs


@pytest.fixture
def real_project(tmp_path) -> Path:
    """A copy of the project that writes into a separate folder."""
    return copy_project(tmp_path / "project")


@pytest.mark.slow
def test_the_installation_check_passes(real_project):
    done = call(str(real_project / "bin/test.sh"), "-a", "logger=none", cwd=real_project)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 jobs done" in done.stdout
    assert "VIC" in done.stdout and "BINCE" in done.stdout
    results = real_project / "results" / "exp_test"
    assert (results / "summarized_metrics_merged.csv").is_file()
    patterns = ("**/results_featurizer.csv", "**/datapred_*/**/results_communication.csv")
    for pattern in (*patterns, "**/datapred_*/**/results_predictor.csv"):
        assert len(list(results.glob(pattern))) == 2


@pytest.mark.slow
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_sweep_continues_after_a_failed_job(real_project, n_jobs):
    script = str(real_project / "bin/test.sh")
    # a contrastive compressor has no decoder to predict from
    settings = f"logger=none featurizer=neural_rec distortion=BINCE,VIC parallel_jobs={n_jobs}"
    first = call(script, "-a", settings, cwd=real_project)
    assert first.returncode != 0
    assert "1 of 2 jobs done" in first.stdout and "failed: job 0" in first.stdout
    assert "distortion=BINCE" in first.stdout and "no decoder" in first.stdout
    assert FIX in first.stdout and "Traceback" not in first.stdout + first.stderr
    again = call(script, "-c", *job_ids(real_project), cwd=real_project)
    assert again.returncode != 0 and "1 of 2 jobs done" in again.stdout
    logs = [log.read_text() for log in real_project.glob("outputs/*/*/1/job.log")]
    assert sorted("its results are reused" in log for log in logs) == [False, True]
