"""Display of a sweep, and the logs of its jobs."""

import os
import sys

import pytest
from helpers.tiny import ROOT, call

from utils.runs.experiment_status import LOG

# A job that prints, also from a child process; the second job fails.
SCRIPT = """
import logging, subprocess, sys
from utils.cluster import sweep
from utils.runs.status_file import recorded_job

def main(cfg):
    with recorded_job():
        print("said by the job")
        print("said on stderr", file=sys.stderr)
        logging.warning("said by a logger")
        subprocess.run(["echo", "said by its child"])
        if cfg.seed == 2:
            raise ValueError("no luck with " + "long words " * 20)

sweep.run(main)
"""
SAID = ["said by the job", "said by a logger", "said on stderr", "said by its child"]


@pytest.fixture
def command(tmp_path) -> list[str]:
    (tmp_path / "main.py").write_text(SCRIPT)
    return [sys.executable, "main.py", "data@data_feat=banana_rot", "logger=none"]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "HYDRA_FULL_ERROR": "0"}


def test_jobs_print_into_their_logs_and_the_screen_has_short_lines(command, tmp_path):
    sweep = ["seed=1,2,3", "parallel_jobs=2"]
    done = call(*command, *sweep, cwd=tmp_path, env=environment())
    assert done.returncode == 1 and done.stderr == ""
    lines, report = done.stdout.split("2 of 3 jobs done; ")
    assert all(len(line) <= 100 for line in lines.splitlines())
    assert "failed: seed=2" in lines and "ValueError: no luck" in report
    assert not any(said in done.stdout for said in SAID[:-1]) and str(tmp_path) not in done.stdout
    for log in tmp_path.glob(f"outputs/*/*/*/{LOG}"):
        text = log.read_text()
        assert all(text.count(said) == 1 for said in SAID)
        assert ("Traceback" in text) == (log.parent.name == "1")
        assert (str(log.relative_to(tmp_path)) in report) == (log.parent.name == "1")


def test_a_single_job_has_the_terminal_to_itself(command, tmp_path):
    done = call(*command, cwd=tmp_path, env=environment())
    assert all(said in done.stdout + done.stderr for said in SAID)
    assert not list(tmp_path.rglob(LOG))
