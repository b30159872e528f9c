"""The scripts in bin/: flags, errors, what they call, exit status.

Most tests run the real scripts in a copy of the project whose Python is a stub that notes how it
is called, so they take milliseconds.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import ROOT, call

SCRIPTS = sorted(
    str(path.relative_to(ROOT)) for path in (*ROOT.glob("bin/*.sh"), *ROOT.glob("bin/*/*.sh"))
)
EXPERIMENTS = [s for s in SCRIPTS if "utils.sh" in (ROOT / s).read_text() and "utils" not in s]
# The stub exits with the status in `status`, or fails for calls with a text that `failing` holds.
STUB = """#!/usr/bin/env bash
printf '%s\\n' "$*" >>calls
if [ -f sleeping ]; then sleep 20; fi
if [ -f failing ] && [[ "$*" == *"$(cat failing)"* ]]; then exit 3; fi
"""


@pytest.fixture
def project(tmp_path) -> Path:
    """A copy of what the scripts need, with the stub for Python."""
    root = tmp_path / "project"
    for name in ("bin", "conf"):
        shutil.copytree(ROOT / name, root / name)
    python = root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(STUB)
    python.chmod(0o755)
    return root


def calls(project: Path) -> list[str]:
    """What Python was called with, without the id of the job."""
    file = project / "calls"
    lines = file.read_text().splitlines() if file.exists() else []
    return [" ".join(p for p in shlex.split(s) if not p.startswith("job_id=")) for s in lines]


def job_ids(project: Path) -> list[str]:
    return sorted(folder.name for folder in project.glob("outputs/*"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_executable_and_parse(script):
    assert os.access(ROOT / script, os.X_OK) or script == "bin/utils.sh"
    assert call("bash", "-n", script).returncode == 0


@pytest.mark.parametrize("script", EXPERIMENTS)
def test_help_is_given_for_nothing(script, project):
    done = call(str(project / script), "-h")
    assert done.returncode == 0 and done.stderr == ""
    for flag in ("-m MODE", "-s NAME", "-t MINUTES", "-a", "-c JOB_ID", "-v PREFIX"):
        assert flag in done.stdout
    assert calls(project) == [] and job_ids(project) == []


SLOW_TO_IMPORT = pytest.param("bin/benchmark.sh", marks=pytest.mark.slow)


@pytest.mark.parametrize("script", ["bin/setup.sh", SLOW_TO_IMPORT])
def test_the_other_scripts_have_help_too(script):
    done = call(script, "-h")
    assert done.returncode == 0 and "--" in done.stdout


@pytest.mark.parametrize("script", EXPERIMENTS)
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-m", "fast"], ["quick", "debug_cpu", "-m fast"]),
        (["-s", "moon"], ["none", "-s moon"]),
        (["-t", "soon"], ["minutes", "soon"]),
        (["-c", "yesterday"], ["outputs/yesterday"]),
        (["-x"], ["-x", "-h"]),
        (["-m"], ["-m needs a value"]),
        (["quick"], ["quick", "-h"]),
    ],
    ids=lambda value: "".join(value) if isinstance(value, list) else None,
)
def test_wrong_flags_end_with_status_2_and_say_what_there_is(script, arguments, expected, project):
    done = call(str(project / script), *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert all(text in done.stderr for text in expected)
    assert calls(project) == [] and job_ids(project) == []


@pytest.mark.parametrize("script", EXPERIMENTS)
def test_a_script_names_experiments_that_exist(script, project):
    done = call(str(project / script))
    assert done.returncode == 0, done.stderr
    found = calls(project)
    names = {word.split("=")[1] for line in found for word in line.split() if "experiment=" in word}
    assert names and all((ROOT / f"conf/experiment/{name}.yaml").is_file() for name in names)
    kinds = [line.split()[0] for line in found]
    # the steps that fetch data and save weights are modules
    assert kinds[0] in ("main.py", "-m")
    assert kinds[-1] == "aggregate.py" or set(kinds) == {"-m"}


def test_flags_become_settings(project):
    settings = ["-m", "quick", "-t", "30", "-a", "seed=1,2  trainer.max_epochs=3", "-a", "goal=x"]
    assert call(str(project / "bin/test.sh"), *settings).returncode == 0
    main, aggregate = calls(project)
    overrides = "timeout_min=30 seed=1,2 trainer.max_epochs=3 goal=x"
    assert main == f"main.py experiment=test mode=quick slurm=none {overrides}"
    # the same settings, so that it looks where the results are
    assert aggregate == f"aggregate.py experiment=test mode=quick {overrides}"


@pytest.mark.parametrize("arguments", [[], ["-m", "quick", "-a", "seed=3 goal=x"]])
def test_a_sweep_continues_with_the_same_arguments(project, arguments):
    script = str(project / "bin/test.sh")
    assert call(script, *arguments).returncode == 0
    first = calls(project)
    (job_id,) = job_ids(project)
    done = call(script, "-c", job_id)
    assert done.returncode == 0, done.stderr
    assert calls(project) == first * 2


def test_a_sweep_continues_wherever_the_script_is_called_from(project):
    options = {"cwd": project / "bin" / "banana"}
    assert call("./banana_RD.sh", **options).returncode == 0
    done = call("./banana_RD.sh", "-c", *job_ids(project), **options)
    assert done.returncode == 0, done.stderr
    done = call("bash", "banana_RD.sh", "-c", job_ids(project)[0], **options)
    assert done.returncode == 0, done.stderr
    assert len(calls(project)) == 6


@pytest.mark.parametrize(
    ("prefix", "mode"), [("quick", "quick"), ("quick_", "quick"), ("", "none")]
)
def test_figures_only(project, prefix, mode):
    assert call(str(project / "bin/test.sh"), "-v", prefix).returncode == 0
    assert calls(project) == [f"aggregate.py experiment=test mode={mode}"]
    assert job_ids(project) == []


@pytest.mark.parametrize("failing", ["main.py", "aggregate.py", "digits_classical"])
def test_a_failure_is_the_exit_status_and_the_rest_is_done(project, failing):
    (project / "failing").write_text(failing)
    done = call(str(project / "bin/digits/digits_viz_VIC.sh"))
    assert done.returncode == 3 and len(calls(project)) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_script_does_not_end_well(project, number):
    (project / "sleeping").touch()
    command = [str(project / "bin/test.sh")]
    with subprocess.Popen(
        command,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        # what runs in the background of a shell ignores SIGINT, and would hand that on
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        while not calls(project):
            time.sleep(0.01)
        os.killpg(process.pid, number)
        assert process.wait(10) != 0


# --- for real


@pytest.fixture
def real_project(tmp_path) -> Path:
    """A copy of the project that writes into a folder of its own."""
    root = tmp_path / "project"
    for name in ("bin", "conf", "lossyless", "utils"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("main.py", "aggregate.py"):
        shutil.copy(ROOT / name, root)
    (root / ".venv").symlink_to(sys.prefix)
    return root


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
def test_a_sweep_outlives_a_job_that_fails_and_goes_on(real_project, n_jobs):
    script = str(real_project / "bin/test.sh")
    # a contrastive compressor has no decoder to predict from
    settings = f"logger=none featurizer=neural_rec distortion=BINCE,VIC parallel_jobs={n_jobs}"
    first = call(script, "-a", settings, cwd=real_project)
    assert first.returncode != 0
    assert "1 of 2 jobs done" in first.stdout and "failed: job 0" in first.stdout
    assert "distortion=BINCE" in first.stdout and "no decoder" in first.stdout
    again = call(script, "-c", *job_ids(real_project), cwd=real_project)
    assert again.returncode != 0 and "its results are reused" in again.stdout
    assert "1 of 2 jobs done" in again.stdout
