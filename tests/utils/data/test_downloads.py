"""Data sets are opened or downloaded by one process at a time; interrupted downloads resume."""

import hashlib
import io
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.file_server import serving
from helpers.read_only import refuse_to_write

from utils.data import downloads
from utils.data.downloads import download, download_zip, open_or_download
from utils.data.module import DataError


def get(folder: Path, calls: list[bool], damage: Exception | None = None) -> np.ndarray:
    """Open `stars.npy`, writing it first if necessary, as torchvision's data sets do."""

    def open_set(download: bool) -> np.ndarray:
        calls.append(download)
        if damage is not None and not download:
            raise damage
        if download:
            np.save(folder / "stars.npy", np.arange(5))
        return np.load(folder / "stars.npy")

    return open_or_download(open_set, name="Stars", size="3 MB", folder=folder)


def test_missing_data_sets_are_downloaded_once(tmp_path, capsys):
    calls: list[bool] = []
    for _ in range(2):
        assert len(get(tmp_path / "new", calls)) == 5
    assert calls == [False, True, False]
    assert capsys.readouterr().out.count("3 MB") == 1


@pytest.mark.parametrize("reason", ["Read-only file system", "No space left", "No locks available"])
def test_a_folder_that_cannot_be_written_to_is_only_read(tmp_path, monkeypatch, reason):
    if reason == "No locks available":  # on some network file systems

        def acquire(lock):
            raise OSError(37, reason)

        monkeypatch.setattr(downloads.FileLock, "acquire", acquire)
    else:
        refuse_to_write(monkeypatch, tmp_path, reason)
    for damage in (None, RuntimeError("not found"), ValueError("truncated")):
        calls: list[bool] = []
        with pytest.raises(DataError, match=f"Stars .*{tmp_path}.*{reason}") as error:
            get(tmp_path, calls, damage)
        assert calls == [False] and not list(tmp_path.iterdir()) and "\n" not in str(error.value)
    np.save(tmp_path / "stars.npy", np.arange(5))
    assert len(get(tmp_path, [])) == 5
    assert [file.name for file in tmp_path.iterdir()] == ["stars.npy"]  # and no lock


def test_errors_of_several_mirrors_are_one_line(tmp_path):
    def open_set(download: bool):
        raise RuntimeError("tried mirror A\ntried mirror B")

    with pytest.raises(DataError, match="Stars.*mirror A tried mirror B") as error:
        open_or_download(open_set, name="Stars", size="3 MB", folder=tmp_path)
    assert "\n" not in str(error.value)


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


def fetch(server, folder: Path, name: str = "stars.zip") -> bytes:
    """Content of a downloaded file."""
    download(f"{server.url}/{name}", folder / name, md5=md5(CONTENT))
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


def test_downloads_restart_if_the_server_cannot_resume(server, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stderr", None)  # as in graphical programs and services
    server.knows_ranges = False
    (tmp_path / "stars.zip.part").write_bytes(CONTENT[:999])
    assert fetch(server, tmp_path) == CONTENT


def test_a_file_with_a_wrong_md5_is_deleted(server, tmp_path):
    server.files["/stars.zip"] = CONTENT[::-1]
    with pytest.raises(DataError, match=f"{md5(CONTENT[::-1])}.*{md5(CONTENT)}") as e:
        fetch(server, tmp_path)
    assert "\n" not in str(e.value) and not list(tmp_path.iterdir())
    (tmp_path / "stars.zip.part").write_bytes(bytes(1000))  # from another file
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


def test_a_full_disk_is_an_error_before_the_download(server, archive, tmp_path, monkeypatch):
    url = f"{server.url}/sky.zip"
    free = int(30e9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    with pytest.raises(DataError, match=r"sky.zip.*38.6 GB.*30.0 GB") as error:
        download_zip(url, tmp_path, md5=md5(archive), n_bytes=int(19.3e9))
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)
    assert not server.requests and not list(tmp_path.iterdir())
