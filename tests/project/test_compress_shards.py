"""A folder of images that several jobs compress."""

import sys

import numpy as np
import pytest
from helpers.tiny_clip import save_bottleneck, save_clip
from PIL import Image

from lossyless.hub import clip_compressor
from utils import compress_shards
from utils.cluster import sweep
from utils.compress_shards import INDEX


@pytest.fixture
def settings(tmp_path) -> list[str]:
    rng = np.random.default_rng(0)
    for i in range(5):
        path = tmp_path / "photos" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(path)
    return [
        f"shards.folder={tmp_path / 'photos'}",
        f"shards.out={tmp_path / 'photos.bin'}",
        f"shards.clip={save_clip(tmp_path / 'clip.pt')}",
        f"shards.pretrained={save_bottleneck(tmp_path / 'bottleneck.pt')}",
        "shards.labels=true",
        "shards.device=cpu",
        "shards.n_workers=0",
        "shards.n=2",
    ]


@pytest.fixture
def jobs(monkeypatch) -> list[int]:
    """The shards that were made, by jobs that run here one after the other."""
    made: list[int] = []

    def run(job):
        *overrides, indices = sys.argv[1:]
        for index in indices.removeprefix(f"{INDEX}=").split(","):
            job(sweep.compose_config([*overrides, f"{INDEX}={index}"]))
            made.append(int(index))

    monkeypatch.setattr(sweep, "run", run)
    monkeypatch.setattr(sys, "argv", ["compress_shards"])
    return made


@pytest.mark.parametrize("n", [1, 3])
def test_shards_hold_what_one_process_writes(settings, jobs, tmp_path, n):
    compress_shards.main([*settings, f"shards.n={n}"])
    compressor, _ = clip_compressor(
        "b005",
        device="cpu",
        clip_path=tmp_path / "clip.pt",
        pretrained_path=tmp_path / "bottleneck.pt",
    )
    whole = tmp_path / "whole.bin", tmp_path / "whole.npy"
    compressor.compress_dataset(tmp_path / "photos", *whole, {"num_workers": 0}, is_info=False)
    expected = compressor.decompress_dataset(*whole, is_info=False)
    out = tmp_path / "photos.bin"
    found = compressor.decompress_dataset(out, f"{out}.labels.npy", is_info=False)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert jobs == list(range(n))
    assert not list(tmp_path.glob("*.shards_*"))


def test_only_shards_that_are_missing_are_made_again(settings, jobs, tmp_path):
    settings = [*settings, "shards.n=3"]
    cfg = sweep.compose_config(["experiment=compress_shards", *settings, f"{INDEX}=1"])
    compress_shards.compress_shard(cfg)
    compress_shards.main(settings)
    assert jobs == [0, 2]
    assert (tmp_path / "photos.bin").is_file()


def test_shards_of_other_images_are_not_taken(settings, tmp_path):
    cfg = sweep.compose_config(["experiment=compress_shards", *settings])
    before = compress_shards.shard_file(cfg, 0)
    Image.new("RGB", (40, 40)).save(tmp_path / "photos" / "a" / "new.png")
    assert compress_shards.shard_file(cfg, 0).parent != before.parent


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("shards.folder=null", "shards.folder is missing"),
        ("shards.n=6", "5 images, too few for shards.n=6"),
        ("shards.n=0", "expected at least 1"),
        ("shards.out=nowhere/photos.bin", "its folder does not exist"),
        ("shards.clip=none.pt", "no file none.pt"),
    ],
)
def test_what_is_wrong_is_found_before_any_job(settings, jobs, capsys, override, message):
    with pytest.raises(SystemExit, match="2"):
        compress_shards.main([*settings, override])
    assert message in capsys.readouterr().err
    assert jobs == []
