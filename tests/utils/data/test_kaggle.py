"""Downloads from Kaggle, with a fake client."""

import sys
import types
import zipfile

import pytest
from helpers.kaggle_client import Client

from utils.data import kaggle
from utils.data.module import DataError

FILES = {"images/1.jpg": b"one", "images/2.jpg": b"two", "table.csv": b"a,b"}


def fetch(monkeypatch, client, folder, name=None):
    """Download a data set or a file of the competition "stars"."""
    monkeypatch.setattr(kaggle, "connect", lambda: client)
    if name:
        kaggle.download_data_set(name, folder)
    else:
        kaggle.download("stars", "all.zip", folder)


@pytest.mark.parametrize("name", [None, "me/stars"])
def test_files_are_downloaded_and_unpacked(tmp_path, monkeypatch, name):
    folder = tmp_path / "new" / "data"
    client = Client(FILES)
    fetch(monkeypatch, client, folder, name)
    assert client.calls == [(name or "stars", "stars.zip" if name else "all.zip", False)]
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert found == FILES
    assert {path.name for path in folder.iterdir()} == {"images", "table.csv"}


def test_interrupted_unpacking_leaves_nothing_and_can_be_repeated(tmp_path, monkeypatch):
    def stop(self, path):
        (path / "images").mkdir(parents=True)
        (path / "images" / "1.jpg").write_bytes(b"on")
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(zipfile.ZipFile, "extractall", stop)
        with pytest.raises(KeyboardInterrupt):
            fetch(monkeypatch, Client(FILES), tmp_path)
    assert not (tmp_path / "images").exists()
    monkeypatch.undo()
    fetch(monkeypatch, Client(FILES), tmp_path)
    assert {path.name for path in (tmp_path / "images").iterdir()} == {"1.jpg", "2.jpg"}
    assert {path.name for path in tmp_path.iterdir()} == {"images", "table.csv"}


class Truncating(Client):
    def competition_download_file(self, competition, file_name, path, force, quiet):
        super().competition_download_file(competition, file_name, path, force, quiet)
        with open(f"{path}/{file_name}", "r+b") as file:
            file.truncate(60)


class Forgetful(Client):
    def competition_download_file(self, competition, file_name, path, force, quiet):
        """Downloads nothing."""


@pytest.mark.parametrize("client", [Truncating(FILES), Forgetful()])
def test_an_incomplete_file_is_named_and_deleted(tmp_path, monkeypatch, client):
    with pytest.raises(DataError, match="all.zip"):
        fetch(monkeypatch, client, tmp_path)
    assert not (tmp_path / "all.zip").exists() and not (tmp_path / "images").exists()


def test_errors_of_kaggle_say_what_to_do(tmp_path, monkeypatch):
    client = Client(error=OSError("403 Client Error: Forbidden"))
    with pytest.raises(DataError, match="403 Client Error.*kaggle.com/c/stars/rules"):
        fetch(monkeypatch, client, tmp_path)
    with pytest.raises(DataError, match="me/stars: 403 Client Error.*token"):
        fetch(monkeypatch, client, tmp_path, "me/stars")


def test_a_missing_kaggle_client_is_an_error_that_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "kaggle", None)
    with pytest.raises(DataError, match="pip install kaggle six"):
        kaggle.connect()


def test_a_missing_kaggle_token_is_an_error_that_names_its_file(monkeypatch):
    class Api:
        def authenticate(self):
            sys.exit(1)

    module = types.ModuleType("kaggle.api.kaggle_api_extended")
    module.KaggleApi = Api
    for name in ("kaggle", "kaggle.api"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(DataError, match="~/.kaggle/access_token"):
        kaggle.connect()
    Api.authenticate = lambda self: None
    assert isinstance(kaggle.connect(), Api)
