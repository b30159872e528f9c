"""Weights are the ones that were asked for, or an error says what to do."""

import hashlib

import pytest
import torch

from lossyless.weights import WeightsError, check_sha256, fetch

CONTENT = b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def url(tmp_path) -> str:
    source = tmp_path / "source" / "net.pt"
    source.parent.mkdir()
    source.write_bytes(CONTENT)
    return source.as_uri()


@pytest.mark.parametrize("sha256", [SHA256, SHA256[:8], SHA256.upper()])
def test_a_file_is_downloaded_once(url, tmp_path, sha256):
    path = fetch(url, sha256=sha256, folder=tmp_path / "new" / "cache")
    assert path == tmp_path / "new" / "cache" / "net.pt" and path.read_bytes() == CONTENT
    (tmp_path / "source" / "net.pt").unlink()
    assert fetch(url, sha256=sha256, folder=path.parent) == path
    assert [p.name for p in path.parent.iterdir()] == ["net.pt"]


def test_it_goes_by_default_where_torch_hub_keeps_its_own(url, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    assert fetch(url, sha256=SHA256, name="a.pt") == tmp_path / "hub" / "checkpoints" / "a.pt"


def test_without_a_network_the_error_says_what_to_place_where(tmp_path):
    url = (tmp_path / "nowhere" / "net.pt").as_uri()
    with pytest.raises(WeightsError) as error:
        fetch(url, sha256=SHA256, folder=tmp_path)
    assert url in str(error.value) and f"place it at {tmp_path / 'net.pt'}" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_download_with_another_checksum_is_not_kept(url, tmp_path):
    with pytest.raises(WeightsError, match=SHA256):
        fetch(url, sha256="0" * 64, folder=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_local_file_with_another_checksum_is_refused_and_left_alone(url, tmp_path):
    (tmp_path / "net.pt").write_bytes(b"other")
    with pytest.raises(WeightsError, match="Remove it"):
        fetch(url, sha256=SHA256, folder=tmp_path)
    assert (tmp_path / "net.pt").read_bytes() == b"other"


@pytest.mark.parametrize("sha256", ["", SHA256[:7], "not hexadecimal", SHA256 + "0"])
def test_a_checksum_that_is_none_is_an_error_of_the_caller(url, tmp_path, sha256):
    with pytest.raises(ValueError, match="hexadecimal digits"):
        fetch(url, sha256=sha256, folder=tmp_path)


def test_check_sha256_names_the_file_and_both_checksums(tmp_path):
    path = tmp_path / "net.pt"
    path.write_bytes(CONTENT)
    check_sha256(path, SHA256[:20])
    with pytest.raises(WeightsError, match=f"{path}.*{SHA256}.*{'1' * 8}"):
        check_sha256(path, "1" * 8)


# --- files without a published checksum


def test_without_a_checksum_the_first_use_is_trusted_and_later_ones_are_checked(url, tmp_path):
    path = fetch(url, sha256=None, folder=tmp_path / "cache")
    record = path.with_name("net.pt.sha256")
    assert record.read_text() == f"{SHA256}  net.pt\n"  # as sha256sum writes it
    assert fetch(url, sha256=None, folder=path.parent) == path
    assert sorted(p.name for p in path.parent.iterdir()) == ["net.pt", "net.pt.sha256"]
    path.write_bytes(b"other")
    with pytest.raises(WeightsError, match=rf"{path}.*{SHA256}.*remove {record} to trust"):
        fetch(url, sha256=None, folder=path.parent)
    record.unlink()
    assert fetch(url, sha256=None, folder=path.parent) == path
    assert record.read_text().startswith(hashlib.sha256(b"other").hexdigest())


def test_a_file_that_the_user_placed_is_noted_too(url, tmp_path):
    (tmp_path / "net.pt").write_bytes(b"by hand")
    fetch(url, sha256=None, folder=tmp_path)
    assert (tmp_path / "net.pt.sha256").is_file()


def test_another_download_than_the_first_is_not_kept(url, tmp_path):
    path = fetch(url, sha256=None, folder=tmp_path / "cache")
    path.unlink()
    (tmp_path / "source" / "net.pt").write_bytes(b"replaced by its publisher")
    with pytest.raises(WeightsError, match=SHA256):
        fetch(url, sha256=None, folder=path.parent)
    assert not path.exists()


def test_a_note_that_is_no_checksum_is_named(url, tmp_path):
    (tmp_path / "net.pt.sha256").write_text("nonsense")
    with pytest.raises(WeightsError, match="net.pt.sha256.*'nonsense'"):
        fetch(url, sha256=None, folder=tmp_path)


def test_where_nothing_can_be_written_a_warning_says_so(url, tmp_path, monkeypatch):
    (tmp_path / "net.pt").write_bytes(CONTENT)

    def refuse(path):
        raise PermissionError("read-only")

    monkeypatch.setattr("lossyless.weights.replacing", refuse)
    with pytest.warns(UserWarning, match="net.pt.sha256 cannot be written.*read-only"):
        assert fetch(url, sha256=None, folder=tmp_path) == tmp_path / "net.pt"
