"""`python -m lossyless.hub`, with networks of random weights."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny import ROOT
from helpers.tiny_clip import Z_DIM, save_bottleneck, save_clip
from PIL import Image

from lossyless.feature_files import write_features
from lossyless.hub import __main__ as cli
from lossyless.hub import feature_compressor


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
    assert "6 img: " in capsys.readouterr().out

    monkeypatch.setattr("lossyless.hub.weights.load_clip", None)  # decoding needs no CLIP
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

    assert run(*words, "--on-damage", "skip") == 3
    assert "warning: " in (err := capsys.readouterr().err) and "0-4095" in err
    np.testing.assert_array_equal(np.load(tmp_path / "Z.npy"), z_hat[4096:])
    np.testing.assert_array_equal(np.load(tmp_path / "Y.npy"), np.arange(4096, len(z_hat)))


def test_nothing_is_damaged_in_an_intact_file(weights, tmp_path):
    save_features(tmp_path / "Z.bin", weights, 5)
    words = ("decompress", tmp_path / "Z.bin", tmp_path / "Z.npy", "--on-damage", "skip")
    assert run(*words, "--pretrained", weights["pretrained"]) == 0


def test_shards_are_merged(weights, tmp_path, capsys):
    shards = [save_features(tmp_path / f"{n}.bin", weights, n) for n in (5, 3)]
    capsys.readouterr()
    merged = tmp_path / "all.bin"
    assert run("merge", tmp_path / "5.bin", tmp_path / "3.bin", "--out", merged) == 0
    assert "8 img" in (said := capsys.readouterr()).out and not said.err
    Z, Y = tmp_path / "Z.npy", tmp_path / "Y.npy"
    options = ("--pretrained", weights["pretrained"], "--labels-out", Y)
    assert run("decompress", merged, Z, *options) == 0
    np.testing.assert_array_equal(np.load(Z), torch.cat(shards))
    assert np.load(Y).tolist() == [*range(5), *range(3)]
    assert np.load(Y).dtype == np.load(tmp_path / "5.bin.labels.npy").dtype


def test_shards_of_a_folder_merge_to_what_one_process_writes(folder, weights, tmp_path, capsys):
    options = ("--labels", "--clip", weights["clip"], "--pretrained", weights["pretrained"])
    whole, merged = tmp_path / "whole.bin", tmp_path / "merged.bin"
    assert run("compress", folder, whole, *options) == 0
    shards = [tmp_path / f"{k}.bin" for k in range(4)]  # of 6 images: 1, 2, 1, 2
    for k, shard in enumerate(shards):
        assert run("compress", folder, shard, "--shard", f"{k + 1}/4", *options) == 0
    assert run("merge", *shards, "--out", merged) == 0
    decoder = feature_compressor(pretrained_path=weights["pretrained"])
    (expected, Y), (found, found_Y) = (
        decoder.decompress_dataset(file, f"{file}.labels.npy") for file in (whole, merged)
    )
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found_Y, Y)

    capsys.readouterr()
    assert run("compress", folder, whole, "--shard", "1/7", *options) == 1
    assert "6 images are too few for 7 shards" in error_of(capsys)


@pytest.mark.parametrize("shard", ["0/4", "5/4", "4", "a/b"])
def test_what_is_no_shard_is_a_usage_error(folder, tmp_path, capsys, shard):
    with pytest.raises(SystemExit, match="2"):
        run("compress", folder, tmp_path / "Z.bin", "--shard", shard)
    assert "K/N" in capsys.readouterr().err


def test_labels_of_other_files_or_shapes_are_not_merged(weights, tmp_path, capsys):
    for n in (5, 3):
        save_features(tmp_path / f"{n}.bin", weights, n)
    before = set(tmp_path.iterdir())
    capsys.readouterr()
    words = (tmp_path / "5.bin", tmp_path / "3.bin", "--out", tmp_path / "all.bin")
    labels = tmp_path / "3.bin.labels.npy"
    np.save(labels, np.arange(3)[::-1])
    assert run("merge", *words) == 1
    assert f"{labels}: are not the labels" in error_of(capsys)
    decoder = feature_compressor(pretrained_path=weights["pretrained"])
    z, y = torch.zeros(3, Z_DIM), np.zeros((3, 2), np.int64)
    decoder.compress_features(z, tmp_path / "3.bin", y, labels, is_info=False)
    assert run("merge", *words) == 1
    assert f"{labels}: expected labels of shape ()" in (error := error_of(capsys))
    assert "found (2,)" in error
    assert set(tmp_path.iterdir()) == before


def test_labels_that_some_shards_lack_are_left_out_and_named(weights, tmp_path, capsys):
    for n in (5, 3):
        save_features(tmp_path / f"{n}.bin", weights, n)
    (tmp_path / "3.bin.labels.npy").unlink()
    capsys.readouterr()
    words = (tmp_path / "5.bin", tmp_path / "3.bin", "--out", tmp_path / "all.bin")
    assert run("merge", *words) == 0
    error = capsys.readouterr().err
    assert error.startswith("warning: ") and "beside " + str(tmp_path / "3.bin") in error
    assert not (tmp_path / "all.bin.labels.npy").exists()


@pytest.mark.parametrize("out", ["5.bin", "./5.bin", "link.bin"])
def test_merging_overwrites_none_of_its_files(weights, tmp_path, capsys, monkeypatch, out):
    for n in (5, 3):
        save_features(tmp_path / f"{n}.bin", weights, n)
    (tmp_path / "link.bin").symlink_to(tmp_path / "3.bin")
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    capsys.readouterr()
    assert run("merge", "5.bin", "3.bin", "--out", out) == 1
    assert "would be overwritten" in error_of(capsys)
    assert run("merge", "5.bin", "--out", "all.bin") == 2
    assert "at least 2 files" in error_of(capsys)
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_shard_that_is_damaged_leaves_nothing(weights, tmp_path, capsys):
    for n in (5, 3):
        save_features(tmp_path / f"{n}.bin", weights, n)
    data = bytearray((tmp_path / "3.bin").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "3.bin").write_bytes(data)
    before = set(tmp_path.iterdir())
    capsys.readouterr()
    words = (tmp_path / "5.bin", tmp_path / "3.bin", "--out", tmp_path / "all.bin")
    assert run("merge", *words) == 1
    assert "3.bin: chunk 0" in error_of(capsys)
    assert set(tmp_path.iterdir()) == before


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


def test_info_tells_many_classes_in_one_line(weights, tmp_path, capsys):
    rate = feature_compressor(pretrained_path=weights["pretrained"]).rate
    classes = [f"class{i:03d}" for i in range(102)]
    z = torch.zeros(2, Z_DIM)
    write_features([z], tmp_path / "Z.bin", rate, meta={"classes": classes})
    assert run("info", tmp_path / "Z.bin") == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "class000" in line)
    assert line.startswith("meta.classes: class000, class001, ") and len(line) < 120
    assert "class101" in line and "102" in line


@pytest.fixture
def official(weights, tmp_path) -> Path:
    compressor = feature_compressor(pretrained_path=weights["pretrained"])
    path = tmp_path / "official.bin"
    compressor.compress_features(torch.zeros(4, Z_DIM), path, format="official", is_info=False)
    return path


def test_info_knows_the_official_format(official, capsys):
    assert run("info", official) == 0
    n_bytes = official.stat().st_size
    lines = capsys.readouterr().out.splitlines()
    assert any("official" in line for line in lines[1:])
    expected = {"n_examples: 4", f"n_bytes: {n_bytes}", f"bits_per_example: {2 * n_bytes:.1f}"}
    assert expected <= set(lines)


def test_official_files_are_not_merged(official, tmp_path, capsys):
    assert run("merge", official, official, "--out", tmp_path / "all.bin") == 1
    assert "official format, which cannot be merged" in error_of(capsys)
    assert not (tmp_path / "all.bin").exists()


@pytest.mark.parametrize("command", ["info", "decompress", "merge"])
def test_foreign_files_are_one_line(weights, tmp_path, capsys, command):
    (tmp_path / "foreign").write_bytes(b"not compressed features")
    words = {
        "info": [tmp_path / "foreign"],
        "decompress": [tmp_path / "foreign", tmp_path / "Z", "--pretrained", weights["pretrained"]],
        "merge": [tmp_path / "foreign", tmp_path / "foreign", "--out", tmp_path / "Z"],
    }[command]
    assert run(command, *words) == 1
    assert "foreign" in error_of(capsys)
    (tmp_path / "foreign").write_bytes(b"")
    assert run(command, *words) == 1
    assert "foreign: is empty" in error_of(capsys)
    assert not (tmp_path / "Z").exists()


def test_what_is_missing_is_one_line(weights, folder, tmp_path, capsys):
    assert run("info", tmp_path / "nothing.bin") == 1
    assert "nothing.bin" in error_of(capsys)
    assert run("decompress", folder, tmp_path / "Z") == 1
    assert "photos: is a folder" in error_of(capsys)
    save_features(tmp_path / "Z.bin", weights, 3)
    assert (
        run("decompress", tmp_path / "Z.bin", tmp_path / "Z", "--pretrained", tmp_path / "no.pt")
        == 1
    )
    assert "no.pt: no such file" in (error := error_of(capsys))
    assert "--pretrained" in error
    assert run("compress", tmp_path / "photo", tmp_path / "Z") == 1
    assert "photo: no such folder" in error_of(capsys)
    assert run("compress", folder / "a" / "0.jpg", tmp_path / "Z") == 1
    assert "0.jpg: is a file, expected a folder" in error_of(capsys)
    for words in ((tmp_path / "no/Z",), (tmp_path / "Z", "--label-file", tmp_path / "no/Z")):
        assert run("compress", folder, *words) == 1
        assert f"{tmp_path / 'no/Z'}: the folder {tmp_path / 'no'} does not exist" in error_of(
            capsys
        )


@pytest.mark.parametrize(
    ("option", "value", "status", "message"),
    [
        ("--clip", "nothing/x.pt", 1, "nothing/x.pt: no such file (clip_path=, --clip)"),
        ("--pretrained", "no.pt", 1, "no.pt: no such file (pretrained_path=, --pretr"),
        ("--device", "foo", 2, "device: 'foo'"),
        ("--device", "cuda:99", 2, "device: 'cuda:99'"),
    ],
)
def test_arguments_are_refused_before_anything_is_loaded(
    folder, tmp_path, capsys, monkeypatch, option, value, status, message
):
    monkeypatch.setattr("lossyless.hub.weights.fetch", None)
    monkeypatch.setattr("lossyless.hub.weights.load_clip", None)
    assert run("compress", folder, tmp_path / "Z", option, value) == status
    assert message in error_of(capsys)


def test_another_clip_is_one_line(folder, weights, tmp_path, capsys):
    small = save_clip(tmp_path / "small.pt", z_dim=64)
    options = ("--clip", small, "--pretrained", weights["pretrained"], "--device", "cpu")
    assert run("compress", folder, tmp_path / "Z", *options) == 2
    assert "features of 64" in error_of(capsys)


def test_labels_in_a_file_of_another_name(folder, weights, tmp_path, capsys):
    options = ("--clip", weights["clip"], "--pretrained", weights["pretrained"], "--device", "cpu")
    out, labels = tmp_path / "Z.bin", tmp_path / "L.npy"
    # `--labels` takes no value: what follows it is the folder
    assert run("compress", "--labels", folder, out, "--label-file", labels, *options) == 0
    assert np.load(labels).tolist() == [0, 0, 0, 1, 1, 1]
    assert not (tmp_path / "Z.bin.labels.npy").exists()
    capsys.readouterr()
    words = ("decompress", out, tmp_path / "Z.npy", "--label-file", labels)
    assert run(*words) == 2
    assert "--label-file goes with --labels-out" in error_of(capsys)
    options = ("--labels-out", tmp_path / "Y.npy", "--pretrained", weights["pretrained"])
    assert run(*words, *options) == 0
    assert np.load(tmp_path / "Y.npy").tolist() == [0, 0, 0, 1, 1, 1]


def test_results_overwrite_nothing_that_is_read(weights, tmp_path, capsys):
    save_features(tmp_path / "Z.bin", weights, 3)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    labels = tmp_path / "Z.bin.labels.npy"
    assert run("decompress", tmp_path / "Z.bin", tmp_path / "Z.bin") == 1
    assert "would be overwritten" in error_of(capsys)
    assert run("decompress", tmp_path / "Z.bin", tmp_path / "Z", "--labels-out", labels) == 1
    assert "would be overwritten" in error_of(capsys)
    assert run("decompress", tmp_path / "Z.bin", labels, "--labels-out", tmp_path / "Y.npy") == 1
    assert "would be overwritten" in error_of(capsys)
    Z = tmp_path / "Z.npy"
    for out in (Z, tmp_path / "." / "Z.npy"):
        assert run("decompress", tmp_path / "Z.bin", Z, "--labels-out", out) == 1
        assert "two results" in error_of(capsys)
    assert run("merge", tmp_path / "Z.bin", tmp_path / "Z.bin", "--out", labels) == 1
    assert "would be overwritten" in error_of(capsys)
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_foreign_file_is_named_before_weights_are_looked_for(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lossyless.hub.weights.fetch", None)
    np.save(tmp_path / "Z.npy", np.zeros(3))
    assert run("decompress", tmp_path / "Z.npy", tmp_path / "out") == 1
    assert "Z.npy: not a file of compressed examples" in error_of(capsys)


@pytest.mark.parametrize(("words", "status"), [(["--help"], 0), (["info"], 2)])
def test_help_and_usage_do_not_wait_for_torch(words, status):
    code = (
        "import sys; sys.modules['torch'] = None; from lossyless.hub.__main__ import main; "
        f"main({words!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert "usage: python -m lossyless.hub" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_package_is_one_line(tmp_path, capsys, monkeypatch):
    (tmp_path / "Z.bin").write_bytes(b"something")
    for name in [name for name in sys.modules if name.startswith("lossyless.feature_files")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert run("info", tmp_path / "Z.bin") == 1
    assert "torch" in (error := error_of(capsys)) and "pip install" in error


def test_an_interrupt_is_one_line_and_leaves_nothing(folder, weights, tmp_path):
    """Ctrl-C while images are read, which goes to all processes of the group."""
    code = (
        "import sys, time\n"
        "from PIL import Image\n"
        "from lossyless.hub.__main__ import main\n"
        "from lossyless.hub.images import ImageFolder\n"
        # no image is handed on: torch's thread that does it prints a traceback if it is interrupted
        "def slowly(self, i):\n"
        "    open('reading', 'w').close()\n"
        "    time.sleep(60)\n"
        "ImageFolder.__getitem__ = slowly\n"
        "sys.exit(main())\n"
    )
    words = [folder, tmp_path / "Z.bin", "--labels", "--batch-size", "1", "--workers", "2"]
    words += ["--clip", weights["clip"], "--pretrained", weights["pretrained"], "--device", "cpu"]
    before = set(tmp_path.iterdir())
    process = subprocess.Popen(
        [sys.executable, "-c", code, "compress", *map(str, words)],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # what runs in the background of a shell ignores SIGINT, and would hand that on
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    end = time.monotonic() + 60
    while not (tmp_path / "reading").exists() and time.monotonic() < end:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines() == ["interrupted"]
    assert set(tmp_path.iterdir()) - before == {tmp_path / "reading"}


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["compress", "photos"],
        ["compress", "photos", "out", "--batch-size", "0"],
        ["decompress", "in", "out", "--model", "b5"],
        ["decompress", "in", "out", "--on-damage", "ignore"],
        ["decompress", "in", "out", "--labels", "file"],
        ["merge", "out", "in", "in"],
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
        "": ["compress", "decompress", "info", "merge", "Exit status", "130"],
        "compress": ["--model", "--clip", "--pretrained", "--labels", "--label-file"],
        "decompress": ["--pretrained", "--on-damage", "status 3", "--label-file", "--labels-out"],
        "info": ["FILE"],
        "merge": ["--out OUT", "FILE"],
    }[command]
    assert all(word in text for word in expected)
