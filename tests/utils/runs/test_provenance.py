"""The commit that results record."""

import subprocess

import pytest

from utils.runs import provenance


@pytest.fixture
def version(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    return provenance.code_version.__wrapped__  # without the cache


def test_a_commit_is_dirty_if_the_code_changed_but_not_if_results_did(version, tmp_path):
    assert version() is None
    (tmp_path / "results").mkdir()
    code, result = tmp_path / "code.py", tmp_path / "results" / "a.csv"
    for file in (code, result):
        file.write_text("1")
    name = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*name, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    commit = version()
    assert len(commit) == 12
    for file in (result, tmp_path / "untracked"):
        file.write_text("22")
    assert version() == commit
    code.write_text("22")
    assert version() == f"{commit}-dirty"
