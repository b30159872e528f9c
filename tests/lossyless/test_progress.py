"""Loops also print their progress to logs."""

import sys

import numpy as np
import pytest

from lossyless import ArrayCompressor
from lossyless.parallel import affordable_workers
from lossyless.progress import progress
from lossyless.weights import fetch


def test_progress_is_printed_line_by_line_without_a_terminal(capsys):
    assert list(progress(range(5), "numbers", seconds=0)) == list(range(5))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 and " 20%" in lines[0] and " 80%" in lines[-1]
    assert list(progress(range(5), "numbers")) == list(range(5))
    assert capsys.readouterr().err == ""  # a quick loop


@pytest.mark.filterwarnings("ignore")
def test_the_library_works_silently_without_stderr(tmp_path, capsys, monkeypatch):
    """As in graphical programs and services."""
    monkeypatch.setattr("lossyless.paper_compressor.MIN_STEPS", 3)
    monkeypatch.setattr("lossyless.parallel.os.sysconf", lambda name: 0, raising=False)
    (tmp_path / "weights").write_bytes(b"weights")
    monkeypatch.setattr(sys, "stderr", None)
    assert list(progress(range(5), "numbers", seconds=0)) == list(range(5))
    assert affordable_workers(3, 1) == (0 if sys.platform == "linux" else 3)
    ArrayCompressor.paper(verbose=True).fit(np.eye(9))
    path = fetch((tmp_path / "weights").as_uri(), sha256=None, folder=tmp_path / "new")
    assert path.read_bytes() == b"weights"
    assert capsys.readouterr().out.startswith("downloading")
