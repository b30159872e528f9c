"""Image folders: order, names, classes, shards, orientation."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_clip import SIDE
from PIL import Image
from torchvision import datasets

from lossyless.hub import SourceError
from lossyless.hub.batches import Examples
from lossyless.hub.images import ImageFolder, image_names, n_source_bytes, take_shard


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


# --- folders


def test_a_folder_is_read_in_sorted_order(folder):
    images = ImageFolder(folder, has_classes=True)
    paths = sorted(folder.rglob("*.png"))
    assert images.classes == ["cat", "dog"] and len(images) == 10
    for (picture, label), path in zip(images, paths, strict=True):
        assert label == (path.relative_to(folder).parts[0] == "dog")
        np.testing.assert_array_equal(picture, Image.open(path).convert("RGB"))
    assert {label for _, label in ImageFolder(folder)} == {None}
    assert n_source_bytes(images) == sum(path.stat().st_size for path in paths)


def test_paths_are_sorted_part_by_part(tmp_path):
    """As strings, "cat (old)/1.png" and "cat-big/1.png" would precede "cat/1.png"."""
    for name in ("cat-big/1.png", "cat (old)/1.png", "cat/1.png", "cat.png"):
        save(tmp_path / name)
    expected = ["cat/1.png", "cat (old)/1.png", "cat-big/1.png", "cat.png"]
    assert image_names(ImageFolder(tmp_path)) == expected
    (tmp_path / "cat.png").unlink()
    images = ImageFolder(tmp_path, has_classes=True)
    assert images.classes == ["cat", "cat (old)", "cat-big"]
    assert [label for _, label in images] == [0, 1, 2]
    assert image_names(take_shard(images, 2, 3)) == ["cat-big/1.png"]
    assert image_names(datasets.ImageFolder(tmp_path)) == expected[:3]
    assert image_names([Image.new("RGB", (8, 8))]) is None


def test_hidden_files_and_other_files_are_skipped(tmp_path):
    save(tmp_path / "a/1.png")
    save(tmp_path / "__MACOSX/a/1.png")
    for name in ("._1.png", ".hidden"):
        (tmp_path / "a" / name).write_bytes(b"no image")
    images = ImageFolder(tmp_path, has_classes=True)
    assert image_names(images) == ["a/1.png"] and images.classes == ["a"]
    for name in ("a.HEIC", "b.heic", "notes.txt", "no_suffix"):
        (tmp_path / "a" / name).write_bytes(b"")
    with pytest.warns(UserWarning, match=r"4 of 5 files.* type .*\.heic \(2\), "):
        assert image_names(ImageFolder(tmp_path)) == ["a/1.png"]


@pytest.mark.parametrize(
    "of_system",
    [
        "@eaDir/cat/THUMB.jpg",
        "$RECYCLE.BIN/S-1/$R1.png",
        ".AppleDouble/cat.png",
        "cat/@eaDir/1.png/THUMB.jpg",
        "cat/Thumbs.db",
    ],
)
def test_what_the_system_adds_to_folders_is_no_image_and_no_class(tmp_path, of_system):
    for name in ("cat/1.png", "dog/1.png"):
        save(tmp_path / name)
    expected = ImageFolder(tmp_path, has_classes=True).samples
    path = tmp_path / of_system
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((tmp_path / "cat/1.png").read_bytes())
    skipped = of_system.removeprefix("cat/").split("/")[0]
    with pytest.warns(UserWarning, match=re.escape(f"{skipped} (1)")) as caught:
        images = ImageFolder(tmp_path, has_classes=True)
    assert len(caught) == 1
    assert images.samples == expected and images.classes == ["cat", "dog"]


def test_links_to_folders_are_followed_without_loops(tmp_path):
    photos, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    for path in (photos / "c/0.png", photos / "c/deeper/1.png", elsewhere / "2.png"):
        save(path)
    for name in ("a", "b"):
        (photos / name).symlink_to(elsewhere)
    (photos / "c" / "deeper" / "loop").symlink_to(photos)
    (elsewhere / "round").symlink_to(photos / "a")
    (photos / "empty").mkdir()
    with pytest.warns(UserWarning) as caught:
        images = ImageFolder(photos, has_classes=True)
    copies, empty = (str(warning.message) for warning in caught)
    assert "b/2.png" in copies and "empty" in empty
    assert image_names(images) == ["a/2.png", "b/2.png", "c/0.png", "c/deeper/1.png"]
    assert images.classes == ["a", "b", "c"]
    assert [label for _, label in images] == [0, 1, 2, 2]


def test_folders_without_images_or_classes_are_rejected(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    save(folder / "loose.png")
    for path in (tmp_path / "nothing", tmp_path / "empty", folder / "loose.png"):
        with pytest.raises(SourceError, match=str(path)):
            ImageFolder(path)
    assert len(ImageFolder(folder)) == 11
    with pytest.raises(SourceError, match=r"loose\.png"):
        ImageFolder(folder, has_classes=True)


def test_shards_partition_a_data_set():
    parts = [list(take_shard(range(10), i, 4)) for i in range(4)]
    assert sum(parts, []) == list(range(10)) and {len(part) for part in parts} == {2, 3}
    for index, n in ((-1, 4), (4, 4), (0, 0)):
        with pytest.raises(ValueError, match="shard"):
            take_shard(range(10), index, n)
    with pytest.raises(SourceError, match="10 images.*11"):
        take_shard(range(10), 0, 11)


def test_images_of_lists_and_folders_are_upright(compressor, tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8))
    expected = compressor.transform(picture)
    assert torch.equal(expected, compressor.transform.transforms[1](picture))  # CLIP's own
    exif = Image.Exif()
    exif[0x0112] = 8  # undoes the rotation of the stored picture
    picture.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as stored:
        for dataset in ([stored], ImageFolder(tmp_path)):
            found, *_ = Examples(dataset, compressor.transform, SIDE)[0]
            assert torch.equal(found, expected)
