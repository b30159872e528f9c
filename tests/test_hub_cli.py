"""`python -m lossyless.hub`, with networks of random weights."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lossyless.hub import __main__ as cli
from lossyless.hub import feature_compressor
from tests.tiny import ROOT
from tests.tiny_clip import Z_DIM, save_bottleneck, save_clip


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    return {
        "clip": save_clip(folder / "clip.pt"),
        "pretrained": save_bottleneck(folder / "bottleneck.pt"),
    }


@pytest.fixture
def folder(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    for i in range(6):
        path = tmp_path / "photos" / "ab"[i % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(path)
    return tmp_path / "photos"


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


def error_of(capsys) -> str:
    """The one line on stderr, without a traceback."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]


def save_features(path: Path, weights: dict[str, Path], n: int) -> torch.Tensor:
    """A compressed file with labels beside it; the features."""
    z = torch.randn(n, Z_DIM, generator=torch.Generator().manual_seed(n))
    decoder = feature_compressor(pretrained_path=weights["pretrained"])
    labels = f"{path}.labels.npy"
    decoder.compress_features(z, path, range(n), labels, is_info=False)
    return torch.from_numpy(decoder.decompress_dataset(path, is_info=False))


@pytest.mark.parametrize("format", ["container", "official"])
def test_a_folder_there_and_back(folder, weights, tmp_path, capsys, monkeypatch, format):
    options = ("--clip", weights["clip"], "--pretrained", weights["pretrained"], "--device", "cpu")
    out = tmp_path / "photos.bin"
    assert run("compress", folder, out, "--labels", "--format", format, *options) == 0
    assert "6 images" in capsys.readouterr().out

    monkeypatch.setattr("lossyless.hub.loading.load_clip", None)  # decoding needs no CLIP
    Z, Y = tmp_path / "Z.npy", tmp_path / "Y.npy"
    options = ("--pretrained", weights["pretrained"])
    assert run("decompress", out, Z, "--labels-out", Y, *options) == 0
    decoder = feature_compressor(pretrained_path=weights["pretrained"])
    np.testing.assert_array_equal(np.load(Z), decoder.decompress_dataset(out))
    assert np.load(Z).dtype == np.float32
    assert np.load(Y).tolist() == [0, 0, 0, 1, 1, 1]


def test_damage_is_skipped_on_demand(weights, tmp_path, capsys):
    z_hat = save_features(tmp_path / "Z.bin", weights, 2 * 4096 + 10)
    data = bytearray((tmp_path / "Z.bin").read_bytes())
    data[len(data) // 4] ^= 1
    (tmp_path / "Z.bin").write_bytes(data)
    options = ("--pretrained", weights["pretrained"], "--labels-out", tmp_path / "Y.npy")
    words = ("decompress", tmp_path / "Z.bin", tmp_path / "Z.npy", *options)
    assert run(*words) == 1
    error = error_of(capsys)
    assert "Z.bin" in error and "chunk 0" in error
    assert not (tmp_path / "Z.npy").exists() and not (tmp_path / "Y.npy").exists()

    assert run(*words, "--on-damage", "skip") == 0
    assert "warning: " in (err := capsys.readouterr().err) and "0-4095" in err
    np.testing.assert_array_equal(np.load(tmp_path / "Z.npy"), z_hat[4096:])
    np.testing.assert_array_equal(np.load(tmp_path / "Y.npy"), np.arange(4096, len(z_hat)))


def test_shards_are_merged(weights, tmp_path, capsys):
    shards = [save_features(tmp_path / f"{n}.bin", weights, n) for n in (5, 3)]
    assert run("merge", tmp_path / "all.bin", tmp_path / "5.bin", tmp_path / "3.bin") == 0
    out = tmp_path / "Z.npy"
    assert run("decompress", tmp_path / "all.bin", out, "--pretrained", weights["pretrained"]) == 0
    np.testing.assert_array_equal(np.load(out), torch.cat(shards))


def test_info_needs_no_weights_and_no_clip(weights, tmp_path):
    save_features(tmp_path / "Z.bin", weights, 5)
    code = (
        "import sys; from lossyless.hub.__main__ import main; "
        f"status = main(['info', {str(tmp_path / 'Z.bin')!r}]); "
        "sys.exit(status or 'clip' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "factorized" in done.stdout and "5" in done.stdout


@pytest.mark.parametrize("command", ["info", "decompress", "merge"])
def test_foreign_files_are_one_line(weights, tmp_path, capsys, command):
    (tmp_path / "foreign").write_bytes(b"not compressed features")
    words = {
        "info": [tmp_path / "foreign"],
        "decompress": [tmp_path / "foreign", tmp_path / "Z", "--pretrained", weights["pretrained"]],
        "merge": [tmp_path / "Z", tmp_path / "foreign"],
    }[command]
    assert run(command, *words) == 1
    assert "foreign" in error_of(capsys)
    assert not (tmp_path / "Z").exists()


def test_what_is_missing_is_one_line(weights, folder, tmp_path, capsys):
    assert run("info", tmp_path / "nothing.bin") == 1
    assert "nothing.bin" in error_of(capsys)
    assert run("decompress", folder, tmp_path / "Z", "--pretrained", tmp_path / "no.pt") == 1
    assert "no.pt" in error_of(capsys)
    options = ("--clip", weights["clip"], "--pretrained", weights["pretrained"])
    assert run("compress", tmp_path / "photo", tmp_path / "Z", *options) == 1
    assert "there is no such folder" in error_of(capsys)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["compress", "photos"],
        ["compress", "photos", "out", "--batch-size", "0"],
        ["decompress", "in", "out", "--model", "b5"],
        ["decompress", "in", "out", "--on-damage", "ignore"],
        ["explode"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(words, capsys):
    with pytest.raises(SystemExit) as caught:
        run(*words)
    assert caught.value.code == 2
    assert "usage: python -m lossyless.hub" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["", "compress", "decompress", "info", "merge"])
def test_help_names_every_option(command, capsys):
    with pytest.raises(SystemExit) as caught:
        run(*filter(None, [command]), "--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    expected = {
        "": ["compress", "decompress", "info", "merge", "Exit status"],
        "compress": ["--model", "--clip", "--pretrained", "--labels", "--adapt", "--device"],
        "decompress": ["--model", "--pretrained", "--on-damage", "--labels-out"],
        "info": ["FILE"],
        "merge": ["OUT", "FILE"],
    }[command]
    assert all(word in text for word in expected)
