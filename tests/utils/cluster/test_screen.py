"""Display of a sweep, and the logs of its jobs."""

import os
import sys
import threading

from helpers.tiny import ROOT, call

from utils.cluster.screen import WIDTH, shown
from utils.runs.experiment_status import LOG
from utils.runs.status_file import job_file

# A job that prints, including from a child process; the second job fails.
SCRIPT = """
import logging, subprocess, sys
from pathlib import Path
from utils.cluster import sweep
from utils.runs.experiment_status import read_jobs
from utils.runs.status_file import recorded_job

def main(cfg):
    with recorded_job():
        print("said by the job")
        print("among", len(read_jobs(next(Path(cfg.paths.outputs).glob("*/*")))), "jobs")
        print("said on stderr", file=sys.stderr)
        logging.warning("said by a logger")
        subprocess.run(["echo", "said by its child"])
        if cfg.seed == 2:
            raise ValueError("no luck with " + "long words " * 20)

sweep.run(main)
"""
SAID = ["said by the job", "said by a logger", "said on stderr", "said by its child"]


def test_a_sweep_goes_on_after_the_reader_of_its_display_is_gone(tmp_path, monkeypatch):
    """As in `main.py | head -1`."""
    errors = []  # in the thread that prints
    monkeypatch.setattr(threading, "excepthook", errors.append)
    file = job_file(tmp_path / "0")
    with file.running(num=0, overrides=[]):
        pass
    usual, (ours, theirs) = os.dup(1), os.pipe()
    os.close(ours)
    os.dup2(theirs, 1)
    try:
        with shown(tmp_path):
            pass
    finally:
        os.dup2(usual, 1)
        os.close(theirs)
        os.close(usual)
    assert errors == []


def test_jobs_print_into_their_logs_and_the_screen_has_short_lines(tmp_path):
    (tmp_path / "main.py").write_text(SCRIPT)
    settings = ["data@data_feat=banana_rot", "logger=none", "seed=1,2,3", "parallel_jobs=2"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "HYDRA_FULL_ERROR": "0"}
    done = call(sys.executable, "main.py", *settings, cwd=tmp_path, env=env)
    assert done.returncode == 1 and done.stderr == ""
    lines, report = done.stdout.split("2 of 3 jobs done; ")
    assert all(len(line) <= WIDTH for line in lines.splitlines())
    assert "failed: seed=2" in lines and "ValueError: no luck" in report
    assert not any(said in done.stdout for said in SAID[:-1]) and str(tmp_path) not in done.stdout
    for log in tmp_path.glob(f"outputs/*/*/*/{LOG}"):
        text = log.read_text()
        assert all(text.count(said) == 1 for said in SAID)
        assert "among 3 jobs" in text  # including those that have not started
        assert ("Traceback" in text) == (log.parent.name == "1")
        assert (str(log.relative_to(tmp_path)) in report) == (log.parent.name == "1")
