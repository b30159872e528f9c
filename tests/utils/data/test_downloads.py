"""Data sets are found or downloaded, one process at a time, also where nobody may write."""

import hashlib
import io
import os
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.file_server import serving
from helpers.tiny import DIGITS, run

from utils.data.downloads import download, download_zip, open_or_download
from utils.data.examples import InMemory
from utils.data.images import ImageDataModule
from utils.data.module import DataError
from utils.data.sources.digits import digits

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


def test_missing_data_sets_are_downloaded_once(tmp_path, capsys):
    calls: list[bool] = []
    for _ in range(2):
        assert len(get(tmp_path / "new", calls)) == 5
    assert calls == [False, True, False]
    assert capsys.readouterr().out.count(SIZE) == 1
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="paths.data.*file"):
        get(tmp_path / "file" / "data", [])


def test_a_read_only_folder_is_left_as_it_is(read_only):
    for damage in (None, RuntimeError("not found"), ValueError("truncated")):
        calls: list[bool] = []
        with pytest.raises(DataError, match=f"Stars .*{read_only}.*paths.data"):
            get(read_only, calls, damage=damage)
        assert calls == [False] and not list(read_only.iterdir())
    np.save(read_only / "stars.npy", np.arange(5))
    assert len(get(read_only, [])) == 5
    assert [file.name for file in read_only.iterdir()] == ["stars.npy"]  # no lock either


def open_stored(folder: Path) -> dict[str, InMemory]:
    splits = open_or_download(
        lambda download: torch.load(folder / "digits.pt", weights_only=True),
        name="digits",
        size="1 MB",
        folder=folder,
    )
    return {split: InMemory(*tensors) for split, tensors in splits.items()}


def stored_digits(**kwargs) -> ImageDataModule:
    """The digits, from a file in the data folder."""
    data = digits(**kwargs)
    data.source = replace(data.source, open=open_stored)
    return data


def test_a_whole_run_leaves_a_read_only_folder_as_it_is(read_only, tmp_path):
    images = digits(side=8, margin=0).open_source()
    tensors = {split: (part.inputs, part.targets) for split, part in images.items()}
    torch.save(tensors, read_only / "digits.pt")
    target = [f"{p}.kwargs._target_={__name__}.stored_digits" for p in ("data_feat", "data_pred")]
    metrics = run(tmp_path, *target, base=DIGITS)
    assert metrics["test/pred/loss"] > 0
    assert [file.name for file in read_only.iterdir()] == ["digits.pt"]


# --- large files

CONTENT = np.random.default_rng(0).bytes(5_000_000)


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr("utils.data.downloads.WAITS", ())
    with serving() as server:
        server.files["/stars.zip"] = CONTENT
        yield server


def fetch(server, folder: Path, name: str = "stars.zip", **kwargs) -> bytes:
    """What is there after a download."""
    download(f"{server.url}/{name}", folder / name, **{"md5": md5(CONTENT)} | kwargs)
    assert [file.name for file in folder.iterdir()] == [name]
    return (folder / name).read_bytes()


def test_an_interrupted_download_is_resumed(server, tmp_path):
    server.breaks_after = [3_000_000]
    with pytest.raises(DataError, match="stars.zip: .* of 5,000,000 bytes") as error:
        fetch(server, tmp_path)
    assert "\n" not in str(error.value)
    (part,) = tmp_path.iterdir()
    n_bytes = part.stat().st_size
    assert part.name == "stars.zip.part" and 0 < n_bytes <= 3_000_000
    assert fetch(server, tmp_path) == CONTENT
    assert server.requests == [("/stars.zip", None), ("/stars.zip", f"bytes={n_bytes}-")]
    part.write_bytes(CONTENT)  # complete, but not yet renamed
    (tmp_path / "stars.zip").unlink()
    assert fetch(server, tmp_path) == CONTENT


def test_downloads_are_retried_while_they_make_progress(server, tmp_path, monkeypatch):
    monkeypatch.setattr("utils.data.downloads.WAITS", (0, 0))
    server.breaks_after = [1_200_000, 1_200_000, 0, 1_200_000]
    assert fetch(server, tmp_path) == CONTENT
    server.files["/moon.zip"] = CONTENT
    server.breaks_after = [1_200_000, 0, 0]
    with pytest.raises(DataError, match="moon.zip"):
        download(f"{server.url}/moon.zip", tmp_path / "moon.zip", md5=md5(CONTENT))
    n_requests = len(server.requests)
    with pytest.raises(DataError, match="404") as error:
        fetch(server, tmp_path, "sun.zip")
    assert f"{server.url}/sun.zip" in str(error.value) and str(tmp_path) in str(error.value)
    assert len(server.requests) == n_requests + 1


def test_a_server_without_ranges_starts_anew(server, tmp_path):
    server.knows_ranges = False
    (tmp_path / "stars.zip.part").write_bytes(CONTENT[:999])
    assert fetch(server, tmp_path) == CONTENT


def test_a_file_with_another_md5_is_not_kept(server, tmp_path):
    server.files["/stars.zip"] = CONTENT[::-1]
    with pytest.raises(DataError, match=f"{md5(CONTENT[::-1])}.*{md5(CONTENT)}") as e:
        fetch(server, tmp_path)
    assert "\n" not in str(e.value) and not list(tmp_path.iterdir())
    (tmp_path / "stars.zip.part").write_bytes(bytes(1000))  # of another file
    server.files["/stars.zip"] = CONTENT
    with pytest.raises(DataError, match="MD5"):
        fetch(server, tmp_path)
    assert fetch(server, tmp_path) == CONTENT


@pytest.fixture
def archive(server) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as content:
        for name in ("sky/1.jpg", "sky/deep/2.jpg"):
            content.writestr(name, name)
    server.files["/sky.zip"] = file.getvalue()
    return file.getvalue()


def fetch_zip(server, folder: Path) -> set[str]:
    content = server.files["/sky.zip"]
    download_zip(f"{server.url}/sky.zip", folder, md5=md5(content), n_bytes=len(content))
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def test_a_zip_file_is_added_to_existing_folders(server, archive, tmp_path):
    (tmp_path / "sky").mkdir()
    (tmp_path / "sky" / "mine.txt").touch()
    (tmp_path / "sky.zip").write_bytes(archive)  # downloaded by hand
    assert fetch_zip(server, tmp_path) == {"sky/1.jpg", "sky/deep/2.jpg", "sky/mine.txt"}
    assert not server.requests
    fetch_zip(server, tmp_path)
    assert server.requests == [("/sky.zip", None)]


def test_too_little_room_is_known_before_a_download(server, archive, tmp_path, monkeypatch):
    url = f"{server.url}/sky.zip"
    free = int(30e9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    with pytest.raises(DataError, match=r"sky.zip.*38.6 GB.*30.0 GB") as error:
        download_zip(url, tmp_path, md5=md5(archive), n_bytes=int(19.3e9))
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)
    assert not server.requests and not list(tmp_path.iterdir())
