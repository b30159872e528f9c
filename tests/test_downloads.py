"""Data sets are found or downloaded, one process at a time, also where nobody may write."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import DIGITS, run

from utils.data.base import DataError
from utils.data.digits import DigitsDataModule
from utils.data.downloads import open_or_download

NAME, SIZE = "Stars", "3 MB"


def opener(folder: Path, calls: list[bool], damage: Exception | None = None):
    """Opens `stars.npy`, or writes it first, as torchvision's data sets do."""

    def open_set(download: bool) -> np.ndarray:
        calls.append(download)
        if damage is not None and not download:
            raise damage
        if download:
            np.save(folder / "stars.npy", np.arange(5))
        return np.load(folder / "stars.npy")

    return open_set


@pytest.fixture
def read_only(tmp_path, monkeypatch):
    """A folder that the process may not write to. Root may, whatever the permissions are."""
    access = os.access
    folder = tmp_path / "data"
    folder.mkdir()

    def refuse(path, mode, **kwargs):
        is_refused = mode == os.W_OK and Path(path).is_relative_to(folder)
        return not is_refused and access(path, mode, **kwargs)

    monkeypatch.setattr(os, "access", refuse)
    return folder


def get(folder: Path, calls: list[bool], **kwargs) -> np.ndarray:
    return open_or_download(opener(folder, calls, **kwargs), name=NAME, size=SIZE, folder=folder)


def test_what_is_missing_is_downloaded_once(tmp_path, capsys):
    calls: list[bool] = []
    for _ in range(2):
        assert len(get(tmp_path / "new", calls)) == 5
    assert calls == [False, True, False]
    assert capsys.readouterr().out.count(f"downloading what is missing of {SIZE}") == 1


def test_a_read_only_folder_is_used_as_it_is(read_only):
    np.save(read_only / "stars.npy", np.arange(5))
    calls: list[bool] = []
    assert len(get(read_only, calls)) == 5 and calls == [False]
    assert [file.name for file in read_only.iterdir()] == ["stars.npy"]  # no lock either


@pytest.mark.parametrize("damage", [None, RuntimeError("not found"), ValueError("truncated")])
def test_what_a_read_only_folder_lacks_is_named_and_not_downloaded(read_only, damage):
    calls: list[bool] = []
    with pytest.raises(DataError, match=f"Stars is not .*{read_only}.*Set paths.data to another"):
        get(read_only, calls, damage=damage)
    assert calls == [False] and not list(read_only.iterdir())


class StoredDigits(DigitsDataModule):
    """The digits, from a file in the data folder."""

    def load_splits(self):
        folder = Path(self.data_dir)
        return open_or_download(
            lambda download: torch.load(folder / "digits.pt", weights_only=True),
            name="digits",
            size="1 MB",
            folder=folder,
        )


def test_a_whole_run_leaves_a_read_only_folder_as_it_is(read_only, tmp_path):
    torch.save(DigitsDataModule(side=8, margin=0).load_splits(), read_only / "digits.pt")
    target = [f"{p}.kwargs._target_={__name__}.StoredDigits" for p in ("data_feat", "data_pred")]
    metrics = run(tmp_path, *target, base=DIGITS)
    assert metrics["test/pred/loss"] > 0
    assert [file.name for file in read_only.iterdir()] == ["digits.pt"]
