"""`python -m lossyless.hub`, with randomly initialised networks."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.damage import damage
from helpers.tiny import ROOT
from helpers.tiny_clip import Z_DIM

from lossyless.hub import SourceError
from lossyless.hub import __main__ as cli


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


def error_of(capsys) -> str:
    """The single line on stderr, without a traceback."""
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
    """Write a compressed file of n examples with labels; return its features."""

    def save(path: Path, n: int, **options) -> np.ndarray:
        z = torch.randn(n, Z_DIM, generator=torch.Generator().manual_seed(n))
        decoder.compress_features(z, path, range(n), is_info=False, **options)
        return decoder.decompress_dataset(path, is_info=False)

    return save


def test_a_folder_and_its_shards_come_back_with_labels_and_names(
    folder, networks, bottleneck, tmp_path, capsys, monkeypatch
):
    whole, merged, Z, Y = (tmp_path / name for name in ("whole", "merged", "Z.npy", "Y.npy"))
    # `--labels` takes no value: the next word is the folder
    assert run("compress", "--labels", folder, whole, *networks) == 0
    assert "10 img: " in capsys.readouterr().out
    shards = [tmp_path / f"{k}.bin" for k in (1, 2, 3)]
    for k, shard in enumerate(shards):
        assert run("compress", folder, shard, "--shard", f"{k + 1}/3", "--labels", *networks) == 0
    capsys.readouterr()
    for parts in (shards[1:], shards[::-1], [*shards, shards[0]]):
        assert run("merge", *parts, "--out", merged) == 0
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("warning: ") and "3/3" in line
    assert run("merge", *shards, "--out", merged) == 0
    assert capsys.readouterr().err == ""

    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.png"))]
    monkeypatch.setattr("lossyless.hub.weights.load_clip", None)  # decoding needs no CLIP
    features = []
    for files in ([whole], shards, [merged]):
        capsys.readouterr()
        assert [run("info", file, "--names") for file in files] == [0] * len(files)
        assert capsys.readouterr().out.splitlines() == names
        parts = []
        for file in files:
            assert run("decompress", file, Z, "--labels-out", Y, *bottleneck) == 0
            parts.append((np.load(Z), np.load(Y)))
        assert np.concatenate([Y for _, Y in parts]).tolist() == [0] * 5 + [1] * 5
        features.append(np.concatenate([Z for Z, _ in parts]))
    assert features[0].shape == (10, Z_DIM) and features[0].dtype == np.float32
    assert all(np.array_equal(features[0], other) for other in features)


def test_unreadable_images_can_be_skipped(folder, networks, compressor, tmp_path, capsys):
    bad, out = folder / "cat" / "2.png", tmp_path / "Z.bin"
    bad.write_bytes(b"")
    words = ("compress", folder, out, "--labels", *networks)
    assert run(*words) == 1
    assert str(bad) in (error := error_of(capsys)) and "--on-error skip" in error
    assert not out.exists()
    assert run(*words, "--on-error", "skip") == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ") and str(bad) in line
    with compressor.open(out) as file:
        assert len(file.names) == 9 and "cat/2.png" not in file.names
        assert file.labels().tolist() == [name.startswith("dog") for name in file.names]


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
    assert run(*words, "--label-file", L) == 0
    capsys.readouterr()
    words = ("decompress", out, tmp_path / "Z.npy", *bottleneck)
    assert run(*words, "--labels-out", Y) == 1
    assert "--label-file" in error_of(capsys)
    assert run(*words, "--label-file", L) == 2
    assert "--labels-out" in error_of(capsys)
    assert run(*words, "--label-file", L, "--labels-out", Y) == 0
    assert np.load(Y).tolist() == np.load(L).tolist() == [0] * 5 + [1] * 5


def test_damage_can_be_skipped(save, bottleneck, tmp_path, capsys):
    file, Z, Y = (tmp_path / name for name in ("Z.bin", "Z.npy", "Y.npy"))
    whole = save(file, 4096 + 10)
    damage(file, share=0.25)
    capsys.readouterr()
    words = ("decompress", file, Z, "--labels-out", Y, *bottleneck)
    assert run(*words) == 1
    assert str(file) in error_of(capsys)
    assert not Z.exists() and not Y.exists()
    assert run(*words, "--on-damage", "skip") == 3
    error = capsys.readouterr().err
    assert error.startswith("warning: ") and "0 to 4095" in error
    np.testing.assert_array_equal(np.load(Z), whole[4096:])
    np.testing.assert_array_equal(np.load(Y), np.arange(4096, len(whole)))


def test_info_describes_both_formats(save, folder, networks, tmp_path, capsys):
    path = tmp_path / "Z.bin"
    assert run("compress", folder, path, "--labels", *networks) == 0
    rate = float(capsys.readouterr().out.split()[1])
    assert run("info", path) == 0
    lines = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert lines["model"] == "bottleneck.pt" and lines["classes"] == "cat, dog"
    assert lines["n_examples"] == "10"
    assert run("decompress", path, tmp_path / "Z.npy") == 1  # no download of another model
    assert "bottleneck.pt" in (error := error_of(capsys)) and "--pretrained" in error
    assert float(lines["bits_per_example"]) == pytest.approx(rate, abs=0.1)
    save(path, 4, format="official", label_file=tmp_path / "Y.npy")
    assert run("info", path) == 0
    n_bytes, text = path.stat().st_size, capsys.readouterr().out
    assert "official" in text and "n_examples: 4" in text
    assert f"n_bytes: {n_bytes}" in text and f"bits_per_example: {2 * n_bytes:.1f}" in text
    assert run("info", path, "--names") == 1
    assert "names" in error_of(capsys)


# --- errors are one line, and change no file


@pytest.fixture
def place(save, weights, folder, tmp_path, monkeypatch) -> Path:
    """The working directory, with usable and unusable files; downloads fail."""
    save(tmp_path / "Z.bin", 3)
    save(tmp_path / "official", 4, format="official", label_file=tmp_path / "Y.npy")
    save(tmp_path / "damaged", 3)
    damage(tmp_path / "damaged")
    (tmp_path / "foreign").write_bytes(b"not compressed features")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "Z.bin")
    (tmp_path / "b.pt").symlink_to(weights["pretrained_path"])
    os.mkfifo(tmp_path / "fifo")
    for name in ("fetch", "load_clip"):
        monkeypatch.setattr(f"lossyless.hub.weights.{name}", None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


ERRORS = [  # a part of the message, and the arguments
    *((name, f"info {name}") for name in ("foreign", "empty", "nothing")),
    *((name, f"decompress {name} new --pretrained b.pt") for name in ("foreign", "empty")),
    ("nothing", "decompress nothing new"),
    ("no/Z", "decompress Z.bin no/Z --pretrained b.pt"),
    ("no.pt", "decompress Z.bin new --pretrained no.pt"),
    ("overwrite", "decompress Z.bin Z.bin --pretrained b.pt"),
    ("overwrite", "decompress Z.bin link --pretrained b.pt"),
    ("overwrite", "decompress Z.bin new --labels-out ./Z.bin --pretrained b.pt"),
    ("overwrite", "decompress Z.bin new --labels-out ./new --pretrained b.pt"),
    ("fifo", "decompress Z.bin fifo --pretrained b.pt"),
    ("fifo", "decompress Z.bin new --labels-out fifo --pretrained b.pt"),
    *((name, f"merge Z.bin {name} --out new") for name in ("foreign", "empty", "nothing")),
    *((name, f"merge Z.bin {name} --out new") for name in ("official", "damaged")),
    *((out, f"merge Z.bin Z.bin --out {out}") for out in ("Z.bin", "link", "fifo", "/dev/null")),
    ("photo", "compress photo new"),
    ("no/Z", "compress photos no/Z"),
    ("no/Y", "compress photos new --labels-out no/Y"),
    ("fifo", "compress photos fifo"),
    ("fifo", "compress photos new --labels-out fifo"),
    ("--pretrained", "compress photos new --pretrained no.pt"),
    ("no.pt", "compress photos new --clip no.pt"),
    ("device: 'foo'", "compress photos new --device foo"),
    ("2 files", "merge Z.bin --out new"),
]


def test_errors_are_one_line_and_change_no_file(place, capsys):
    def content() -> dict[Path, bytes]:
        return {path: path.is_file() and path.read_bytes() for path in place.iterdir()}

    before = content()
    capsys.readouterr()
    for key, words in ERRORS:
        status = run(*words.split())
        assert status == (2 if key in ("device: 'foo'", "2 files") else 1), words
        assert key in error_of(capsys), words
        assert content() == before, words


def test_a_full_gpu_is_one_line(place, capsys, monkeypatch):
    def fail(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("lossyless.hub.weights.load_clip", fail)
    assert run("compress", "photos", "new", "--pretrained", "b.pt") == 1
    assert "out of memory" in error_of(capsys)


def test_wrong_usage_exits_with_2(capsys):
    for words in (
        "",
        "compress photos",
        "compress photos out --batch-size 0",
        "compress photos out --shard 0/4",
        "compress photos out --shard 5/4",
        "compress photos out --shard a/b",
        "decompress in out --model b5",
        "decompress in out --on-damage ignore",
        "decompress in out --labels file",
        "merge out in in",
        "explode",
    ):
        with pytest.raises(SystemExit, match="2"):
            run(*words.split())
        assert "usage: python -m lossyless.hub" in capsys.readouterr().err, words


def test_help_and_missing_packages_need_no_torch(tmp_path):
    """Help is fast, and a missing package gives a one-line error."""
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
    """Ctrl-C while images are read; all processes in the group receive it."""
    code = (
        "import sys, time\n"
        "from lossyless.hub.__main__ import main\n"
        "from lossyless.hub.images import ImageFolder\n"
        # no image is passed on: if interrupted, torch's thread for this prints a traceback
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
        # a shell's background jobs ignore SIGINT, and so do their children
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
