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
from helpers.tiny_clip import Z_DIM, save_clip
from PIL import Image

from lossyless.files import write_features
from lossyless.hub import SourceError
from lossyless.hub import __main__ as cli


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


def error_of(capsys) -> str:
    """The one line on stderr, without a traceback."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]


@pytest.fixture(scope="module")
def bottleneck(weights) -> tuple:
    return ("--pretrained", weights["pretrained_path"])


@pytest.fixture(scope="module")
def networks(weights, bottleneck) -> tuple:
    return ("--clip", weights["clip_path"], *bottleneck, "--device", "cpu")


@pytest.fixture
def save(decoder):
    """Write a compressed file of n examples with labels; returns its features."""

    def save(path: Path, n: int, **options) -> np.ndarray:
        z = torch.randn(n, Z_DIM, generator=torch.Generator().manual_seed(n))
        decoder.compress_features(z, path, range(n), is_info=False, **options)
        return decoder.decompress_dataset(path, is_info=False)

    return save


def test_a_folder_there_and_back(folder, networks, bottleneck, tmp_path, capsys, monkeypatch):
    whole, Z, Y = tmp_path / "whole.bin", tmp_path / "Z.npy", tmp_path / "Y.npy"
    # `--labels` takes no value: what follows it is the folder
    assert run("compress", "--labels", folder, whole, *networks) == 0
    assert "10 img: " in capsys.readouterr().out
    shards = [tmp_path / f"{k}.bin" for k in (1, 2, 3)]
    for k, shard in enumerate(shards):
        assert run("compress", folder, shard, "--shard", f"{k + 1}/3", "--labels", *networks) == 0
    merged = tmp_path / "merged.bin"
    assert run("merge", *shards, "--out", merged) == 0
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.png"))]
    for files in ([whole], shards, [merged]):
        capsys.readouterr()
        assert [run("info", file, "--names") for file in files] == [0] * len(files)
        assert capsys.readouterr().out.splitlines() == names

    monkeypatch.setattr("lossyless.hub.weights.load_clip", None)  # decoding needs no CLIP
    outputs = []
    for file in (whole, merged):
        assert run("decompress", file, Z, "--labels-out", Y, *bottleneck) == 0
        outputs.append((np.load(Z), np.load(Y)))
    assert outputs[0][0].shape == (10, Z_DIM) and outputs[0][0].dtype == np.float32
    assert outputs[0][1].tolist() == [0] * 5 + [1] * 5
    for one, other in zip(*outputs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_unreadable_images_are_left_out_on_demand(folder, networks, compressor, tmp_path, capsys):
    bad = folder / "cat" / "2.png"
    bad.write_bytes(b"")
    words = ("compress", folder, tmp_path / "Z", "--labels", *networks)
    assert run(*words) == 1
    assert str(bad) in (error := error_of(capsys)) and "--on-error skip" in error
    assert not (tmp_path / "Z").exists()
    assert run(*words, "--on-error", "skip") == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ") and str(bad) in line
    with compressor.open(tmp_path / "Z") as file:
        names, labels = file.names, file.labels()
        for i, name in enumerate(names):
            with Image.open(folder / name) as image:
                expected = compressor(compressor.transform(image)[None])[0]
            assert torch.equal(file[i], expected) and labels[i] == name.startswith("dog")
    assert len(names) == 9 and "cat/2.png" not in names


def test_test_images_get_the_labels_of_training_images(
    folder, compressor, networks, tmp_path, capsys
):
    train, test, out = tmp_path / "train.bin", tmp_path / "test", tmp_path / "test.bin"
    assert run("compress", folder, train, "--labels", *networks) == 0
    (test / "dog").mkdir(parents=True)
    (folder / "dog" / "1.png").rename(test / "dog" / "1.png")
    assert run("compress", test, out, "--labels", "--classes", train, *networks) == 0
    for _ in range(2):
        assert compressor.decompress_dataset(out, labels=True)[1].tolist() == [1]
        with compressor.open(out) as file:
            assert file.header.meta["classes"] == ["cat", "dog"]
        compressor.compress_dataset(test, out, labels=True, classes=["cat", "dog"])
    assert run("merge", train, out, "--out", tmp_path / "all.bin") == 0

    capsys.readouterr()
    (test / "dog").rename(test / "fox")
    words = ("compress", test, out, "--classes")
    assert run(*words, train, "--labels", *networks) == 1
    assert "'fox'" in (error := error_of(capsys)) and "1.png" in error
    assert run(*words, train, *networks) == 2
    assert "--labels" in error_of(capsys)
    compressor.compress_dataset(folder, train, is_info=False)
    assert run(*words, train, "--labels", *networks) == 1
    assert str(train) in error_of(capsys)
    for kwargs in ({"classes": ["fox", "fox"], "labels": True}, {"classes": ["fox"]}):
        with pytest.raises(SourceError, match="classes"):
            compressor.compress_dataset(test, out, **kwargs)


def test_labels_of_official_files_lie_beside_them(folder, networks, bottleneck, tmp_path, capsys):
    out, L, Y = (tmp_path / name for name in ("Z.bin", "L.npy", "Y.npy"))
    words = ("compress", folder, out, "--format", "official", *networks)
    assert run(*words, "--labels") == 1
    assert "--labels-out" in error_of(capsys)
    for option in ("--labels-out", "--label-file"):
        assert run(*words, option, L) == 0
        assert np.load(L).tolist() == [0] * 5 + [1] * 5
    capsys.readouterr()
    words = ("decompress", out, tmp_path / "Z.npy", *bottleneck)
    assert run(*words, "--labels-out", Y) == 1
    assert "--label-file" in error_of(capsys)
    assert run(*words, "--label-file", L) == 2
    assert "--labels-out" in error_of(capsys)
    assert run(*words, "--label-file", L, "--labels-out", Y) == 0
    np.testing.assert_array_equal(np.load(Y), np.load(L))


def test_damage_is_skipped_on_demand(save, bottleneck, tmp_path, capsys):
    file, Z, Y = (tmp_path / name for name in ("Z.bin", "Z.npy", "Y.npy"))
    whole = save(file, 4096 + 10)
    words = ("decompress", file, Z, "--labels-out", Y, *bottleneck)
    assert run(*words, "--on-damage", "skip") == 0
    data = bytearray(file.read_bytes())
    data[len(data) // 4] ^= 1
    file.write_bytes(data)
    Z.unlink()
    Y.unlink()
    capsys.readouterr()
    assert run(*words) == 1
    assert str(file) in error_of(capsys)
    assert not Z.exists() and not Y.exists()
    assert run(*words, "--on-damage", "skip") == 3
    assert (error := capsys.readouterr().err).startswith("warning: ") and "0 to 4095" in error
    np.testing.assert_array_equal(np.load(Z), whole[4096:])
    np.testing.assert_array_equal(np.load(Y), np.arange(4096, len(whole)))


def test_files_that_cannot_be_merged_are_named(save, decoder, tmp_path, capsys):
    for n in (5, 3):
        save(tmp_path / f"{n}.bin", n)
    save(tmp_path / "official.bin", 4, format="official", label_file=tmp_path / "Y.npy")
    data = bytearray((tmp_path / "3.bin").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "damaged.bin").write_bytes(data)
    (tmp_path / "link.bin").symlink_to(tmp_path / "3.bin")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for second, out, status, key in (
        ("official.bin", "all.bin", 1, "official.bin: "),
        ("damaged.bin", "all.bin", 1, "damaged.bin: "),
        ("nothing.bin", "all.bin", 1, "nothing.bin"),
        ("3.bin", "5.bin", 1, "5.bin"),
        ("3.bin", "link.bin", 1, "link.bin"),
        (None, "all.bin", 2, "at least 2 files"),
    ):
        files = [tmp_path / name for name in ("5.bin", second) if name]
        assert run("merge", *files, "--out", tmp_path / out) == status
        assert key in error_of(capsys)
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}

    decoder.compress_features(torch.zeros(3, Z_DIM), tmp_path / "plain.bin", is_info=False)
    words = (tmp_path / "5.bin", tmp_path / "plain.bin", "--out", tmp_path / "all.bin")
    assert run("merge", *words) == 0
    error = capsys.readouterr().err  # labels of a part would be misleading
    assert error.startswith("warning: ") and "plain.bin" in error


def test_info_describes_both_formats(save, folder, networks, tmp_path, capsys):
    path = tmp_path / "Z.bin"
    assert run("compress", folder, path, "--labels", *networks) == 0
    rate = float(capsys.readouterr().out.split()[1])
    assert run("info", path) == 0
    lines = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert lines["model"] == "bottleneck.pt" and lines["classes"] == "cat, dog"
    assert lines["n_examples"] == "10"
    assert float(lines["bits_per_example"]) == pytest.approx(rate, abs=0.1)
    save(path, 4, format="official", label_file=tmp_path / "Y.npy")
    assert run("info", path) == 0
    n_bytes, text = path.stat().st_size, capsys.readouterr().out
    assert "official" in text and "n_examples: 4" in text
    assert f"n_bytes: {n_bytes}" in text and f"bits_per_example: {2 * n_bytes:.1f}" in text
    assert run("info", path, "--names") == 1
    assert "names" in error_of(capsys)


# --- errors are one line


@pytest.mark.parametrize("content", [b"not compressed features", b""])
def test_foreign_files_are_named(bottleneck, tmp_path, capsys, content):
    foreign = tmp_path / "foreign"
    foreign.write_bytes(content)
    for words in (
        ("info", foreign),
        ("decompress", foreign, tmp_path / "Z", *bottleneck),
        ("merge", foreign, foreign, "--out", tmp_path / "Z"),
    ):
        assert run(*words) == 1
        assert "foreign" in error_of(capsys)
    assert list(tmp_path.iterdir()) == [foreign]


def test_wrong_paths_and_devices_are_found_before_anything_is_loaded(
    save, folder, networks, tmp_path, capsys, monkeypatch
):
    save(tmp_path / "Z.bin", 3)
    small = save_clip(tmp_path / "small.pt", z_dim=64)
    assert run("compress", folder, tmp_path / "Z", *networks, "--clip", small) == 2
    assert "64" in error_of(capsys)
    for name in ("fetch", "load_clip", "load_bottleneck"):
        monkeypatch.setattr(f"lossyless.hub.weights.{name}", None)
    Z, no = tmp_path / "Z", tmp_path / "no/Z"
    for status, key, words in (
        (1, "nothing.bin", ("info", tmp_path / "nothing.bin")),
        (1, "nothing.bin", ("decompress", tmp_path / "nothing.bin", Z)),
        (1, str(no), ("decompress", tmp_path / "Z.bin", no)),
        (1, "no.pt", ("decompress", tmp_path / "Z.bin", Z, "--pretrained", "no.pt")),
        (1, "--pretrained", ("compress", folder, Z, "--pretrained", "no.pt")),
        (1, "no.pt", ("compress", folder, Z, "--clip", "no.pt")),
        (1, "photo:", ("compress", tmp_path / "photo", Z)),
        (1, str(no), ("compress", folder, no)),
        (1, str(no), ("compress", folder, Z, "--label-file", no)),
        (2, "device: 'foo'", ("compress", folder, Z, "--device", "foo")),
    ):
        assert run(*words) == status
        assert key in error_of(capsys)


def test_results_overwrite_no_input(save, bottleneck, tmp_path, capsys, monkeypatch):
    save(tmp_path / "Z.bin", 3)
    before = (tmp_path / "Z.bin").read_bytes()
    monkeypatch.chdir(tmp_path)
    for words in (("Z.bin",), ("Z", "--labels-out", "./Z.bin"), ("Z", "--labels-out", "./Z")):
        assert run("decompress", "Z.bin", *words, *bottleneck) == 1
        assert "overwrite" in error_of(capsys)
    assert list(tmp_path.iterdir()) == [tmp_path / "Z.bin"]
    assert (tmp_path / "Z.bin").read_bytes() == before


def test_outputs_are_ordinary_files_or_links_to_them(
    save, folder, networks, bottleneck, tmp_path, capsys, monkeypatch
):
    save(tmp_path / "Z.bin", 3)
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to(target)
    for words in (
        ("compress", folder, link, *networks),
        ("decompress", tmp_path / "Z.bin", link, *bottleneck),
        ("merge", tmp_path / "Z.bin", tmp_path / "Z.bin", "--out", link),
    ):
        assert run(*words) == 0
        assert link.is_symlink() and target.stat().st_size
        target.unlink()
    capsys.readouterr()

    fifo, Z = tmp_path / "fifo", tmp_path / "Z"
    os.mkfifo(fifo)
    before = set(tmp_path.iterdir())
    for name in ("fetch", "load_clip", "load_bottleneck"):  # nothing is loaded
        monkeypatch.setattr(f"lossyless.hub.weights.{name}", None)
    for words in (
        ("compress", folder, fifo),
        ("compress", folder, Z, "--labels-out", fifo),
        ("decompress", tmp_path / "Z.bin", fifo),
        ("decompress", tmp_path / "Z.bin", Z, "--labels-out", fifo),
        ("merge", tmp_path / "Z.bin", tmp_path / "Z.bin", "--out", fifo),
        ("merge", tmp_path / "Z.bin", tmp_path / "Z.bin", "--out", "/dev/null"),
    ):
        assert run(*words) == 1
        assert str(words[-1]) in error_of(capsys)
    assert set(tmp_path.iterdir()) == before and fifo.is_fifo()


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["compress", "photos"],
        ["compress", "photos", "out", "--batch-size", "0"],
        ["compress", "photos", "out", "--shard", "0/4"],
        ["compress", "photos", "out", "--shard", "5/4"],
        ["compress", "photos", "out", "--shard", "a/b"],
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


def test_help_and_missing_packages_need_no_torch(tmp_path):
    """Help is fast, and a missing package is one line."""
    (tmp_path / "Z.bin").write_bytes(b"something")
    code = (
        "import sys; sys.modules['torch'] = None; from lossyless.hub.__main__ import main\n"
        "try: main(['compress', '--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        f"sys.exit(main(['decompress', {str(tmp_path / 'Z.bin')!r}, 'Z']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "--shard" in done.stdout
    (line,) = done.stderr.splitlines()
    assert "torch" in line and "pip install" in line


def test_an_interrupt_is_one_line_and_leaves_nothing(folder, networks, tmp_path):
    """Ctrl-C while images are read, which goes to all processes of the group."""
    code = (
        "import sys, time\n"
        "from lossyless.hub.__main__ import main\n"
        "from lossyless.hub.images import ImageFolder\n"
        # no image is passed on: torch's thread that does it prints a traceback if interrupted
        "def slowly(self, i):\n"
        "    open('reading', 'w').close()\n"
        "    time.sleep(60)\n"
        "ImageFolder.__getitem__ = slowly\n"
        "sys.exit(main())\n"
    )
    words = [folder, tmp_path / "Z.bin", "--labels", "--batch-size", "1", "--workers", "2"]
    before = set(tmp_path.iterdir())
    process = subprocess.Popen(
        [sys.executable, "-c", code, "compress", *map(str, [*words, *networks])],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # background jobs of a shell ignore SIGINT, and their children inherit that
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


# --- printing never changes the exit status


@pytest.fixture
def classes_with_accents(decoder, tmp_path) -> Path:
    path = tmp_path / "Z.bin"
    meta = {"classes": ["café", "forêt"], "note": "x" * 200_000}  # more than a pipe holds
    write_features([torch.zeros(2, Z_DIM)], path, decoder.rate, meta=meta)
    return path


def run_process(*words: object, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "lossyless.hub", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, **options)


def test_a_closed_pipe_is_no_error(classes_with_accents, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        for words in (
            ("info", classes_with_accents),
            ("merge", *[classes_with_accents] * 2, "--out", tmp_path / "merged"),
        ):
            done = run_process(*words, stdout=closed)
            assert (done.returncode, done.stderr) == (0, b"")
        assert (tmp_path / "merged").exists()
        assert run_process("info", tmp_path / "nothing", stdout=closed).returncode == 1


def test_an_encoding_is_no_error(classes_with_accents):
    env = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0"}
    env.pop("PYTHONIOENCODING", None)
    done = run_process("info", classes_with_accents, stdout=subprocess.PIPE, env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"caf\xe9" in done.stdout
