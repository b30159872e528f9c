"""Downloads are verified, damaged and wrong files are detected, and loading is strict."""

import hashlib
import os

import numpy as np
import pytest
import torch
from helpers.damage import damage
from torch import nn

from lossyless.weights import WeightsError, fetch, load_strictly, read_checkpoint, read_state_dict

CONTENT = b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def url(tmp_path) -> str:
    source = tmp_path / "source" / "net.pt"
    source.parent.mkdir()
    source.write_bytes(CONTENT)
    return source.as_uri()


@pytest.mark.parametrize("sha256", [SHA256, SHA256[:8]])
def test_a_file_is_downloaded_once(url, tmp_path, sha256):
    path = fetch(url, sha256=sha256, folder=tmp_path / "new" / "cache")
    assert path == tmp_path / "new" / "cache" / "net.pt" and path.read_bytes() == CONTENT
    (tmp_path / "source" / "net.pt").unlink()
    assert fetch(url, sha256=sha256, folder=path.parent) == path
    assert [p.name for p in path.parent.iterdir()] == ["net.pt"]


def test_the_default_folder_is_that_of_torch_hub(url, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    assert fetch(url, sha256=SHA256, name="a.pt") == tmp_path / "hub" / "checkpoints" / "a.pt"


@pytest.mark.parametrize("folder", [None, "cache"])
def test_a_folder_that_cannot_be_written_to_is_replaced_by_a_temporary_one(
    url, tmp_path, monkeypatch, folder
):
    """As if HOME did not exist, which is common in containers and services."""
    home = tmp_path / "home"
    home.write_bytes(b"")  # not even root can create subfolders
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(home / "torch"))
    folder = folder and home / folder
    with pytest.warns(UserWarning, match=f"{home}.*{tmp_path / 'lossyless'}"):
        path = fetch(url, sha256=SHA256, folder=folder)
    assert path.read_bytes() == CONTENT and path.is_relative_to(tmp_path / path.parent.name)
    (tmp_path / "source" / "net.pt").unlink()
    with pytest.warns(UserWarning, match=str(home)):
        assert fetch(url, sha256=SHA256, folder=folder) == path


@pytest.mark.parametrize("folder", [None, "~/.cache/clip"])
def test_users_without_a_home_download_to_a_temporary_folder(url, tmp_path, monkeypatch, folder):
    """As with `docker run --user 1234`, there is no HOME and no entry in /etc/passwd."""
    monkeypatch.setattr("os.path.expanduser", os.fspath)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match="~.*HOME"):
        assert fetch(url, sha256=SHA256, folder=folder).is_relative_to(tmp_path)
    assert not (tmp_path / "~").exists()


def test_failed_downloads_name_the_url_and_the_path(tmp_path):
    url = (tmp_path / "nowhere" / "net.pt").as_uri()
    with pytest.raises(WeightsError) as error:
        fetch(url, sha256=SHA256, folder=tmp_path)
    assert url in str(error.value) and str(tmp_path / "net.pt") in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_files_with_another_checksum_are_errors_and_downloads_removed(url, tmp_path):
    with pytest.raises(WeightsError, match=SHA256):
        fetch(url, sha256="0" * 64, folder=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    (tmp_path / "net.pt").write_bytes(b"other")
    with pytest.raises(WeightsError, match=f"{tmp_path / 'net.pt'}.*{SHA256}"):
        fetch(url, sha256=SHA256, folder=tmp_path)
    assert (tmp_path / "net.pt").read_bytes() == b"other"


def test_files_without_a_checksum_are_not_verified(url, tmp_path):
    path = fetch(url, sha256=None, folder=tmp_path / "cache")
    path.write_bytes(b"by hand")
    assert fetch(url, sha256=None, folder=path.parent) == path
    assert path.read_bytes() == b"by hand"


@pytest.fixture
def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def test_state_dicts_are_unwrapped_and_read_from_arrays(network, tmp_path):
    state = network.state_dict()
    torch.save(state, tmp_path / "plain.pth")
    torch.save({"state_dict": {f"module.{n}": v for n, v in state.items()}}, tmp_path / "a.pt")
    np.savez(tmp_path / "arrays.npz", **{name: value.numpy() for name, value in state.items()})
    for name in ("plain.pth", "a.pt", "arrays.npz"):
        found = read_state_dict(tmp_path / name)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[n], state[n]) for n in state)


@pytest.mark.parametrize("name", ["a.pth", "a.npz"])
def test_other_files_and_damaged_archives_are_errors(name, tmp_path):
    path = tmp_path / name
    for content in (b"", b"no weights", b"PK\x03\x04 half an archive"):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=name):
            read_checkpoint(path)
    torch.save({"a": torch.ones(10_000)}, path)
    damage(path)
    with pytest.raises(WeightsError, match=name):
        read_checkpoint(path)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="list.pth.*list"):
        read_checkpoint(tmp_path / "list.pth")


def test_missing_unexpected_and_misshapen_tensors_are_named(network):
    state = dict(network.state_dict())
    changed = {
        "Missing .*0.bias": {n: v for n, v in state.items() if n != "0.bias"},
        "Unexpected .*0.extra": state | {"0.extra": torch.zeros(2)},
        "size mismatch for 0.bias": state | {"0.bias": torch.zeros(4)},
    }
    for message, content in changed.items():
        with pytest.raises(WeightsError, match=f"net.pth.*{message}"):
            load_strictly(network, content, "net.pth")
    del state["1.num_batches_tracked"]  # older checkpoints lack it
    load_strictly(network, state, "net.pth")
