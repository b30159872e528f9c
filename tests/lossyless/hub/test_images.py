"""Images of folders and data sets reach the compressor in order, and bad ones are named."""

import multiprocessing
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_clip import SIDE
from PIL import Image
from torch.utils.data import Subset, TensorDataset
from torchvision import datasets

from lossyless.hub import SourceError
from lossyless.hub.images import Examples, ImageFolder, n_source_bytes, read_batches, take_shard


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


def names(images: ImageFolder) -> list[str]:
    return [path.relative_to(images.root).as_posix() for path in images.paths]


# --- folders


def test_a_folder_is_read_in_sorted_order(folder):
    images = ImageFolder(folder, has_classes=True)
    paths = sorted(folder.rglob("*.png"))
    assert images.paths == paths and images.classes == ["cat", "dog"]
    assert images.targets == [path.relative_to(folder).parts[0] == "dog" for path in paths]
    for (picture, label), path, target in zip(images, paths, images.targets, strict=True):
        assert label == target
        np.testing.assert_array_equal(picture, Image.open(path).convert("RGB"))
    assert ImageFolder(folder).targets == [None] * 10
    assert n_source_bytes(images) == sum(path.stat().st_size for path in paths)


def test_hidden_files_and_other_files_are_skipped(tmp_path):
    save(tmp_path / "a/1.png")
    save(tmp_path / "__MACOSX/a/1.png")
    for name in ("._1.png", ".hidden"):
        (tmp_path / "a" / name).write_bytes(b"no image")
    images = ImageFolder(tmp_path, has_classes=True)
    assert names(images) == ["a/1.png"] and images.classes == ["a"]
    for name in ("a.HEIC", "b.heic", "notes.txt", "no_suffix"):
        (tmp_path / "a" / name).write_bytes(b"")
    with pytest.warns(UserWarning, match=r"4 of 5 files.*\.heic \(2\), "):
        assert names(ImageFolder(tmp_path)) == ["a/1.png"]


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path):
    photos, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    for path in (photos / "c/0.png", photos / "c/deeper/1.png", elsewhere / "2.png"):
        save(path)
    for name in ("a", "b"):
        (photos / name).symlink_to(elsewhere)
    (photos / "c" / "deeper" / "loop").symlink_to(photos)
    (elsewhere / "round").symlink_to(photos / "a")
    images = ImageFolder(photos, has_classes=True)
    assert names(images) == ["a/2.png", "b/2.png", "c/0.png", "c/deeper/1.png"]
    assert images.classes == ["a", "b", "c"] and images.targets == [0, 1, 2, 2]


def test_folders_without_images_or_classes_are_refused(folder, tmp_path):
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


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_16_bit_greyscale_keeps_its_contrast(compressor, tmp_path, suffix):
    levels = np.linspace(0, 65535, SIDE * SIDE).astype(np.uint16).reshape(SIDE, SIDE)
    path = tmp_path / f"deep{suffix}"
    Image.fromarray(levels).save(path)
    expected = Image.fromarray(np.round(levels / 257).astype(np.uint8))
    picture, _ = ImageFolder(tmp_path)[0]
    np.testing.assert_array_equal(picture, expected.convert("RGB"))
    with Image.open(path) as deep:
        (x, _), (y, _) = Examples([deep, expected], compressor.transform, SIDE)
    assert torch.equal(x, y)


# --- batches


def read(compressor, dataset, **kwargs) -> tuple[torch.Tensor, list]:
    """All images [N, 3, side, side] and labels."""
    examples = Examples(dataset, compressor.transform, SIDE)
    batches = list(read_batches(examples, device=torch.device("cpu"), **kwargs))
    return torch.cat([x for x, _ in batches]), [label for _, labels in batches for label in labels]


def test_images_may_be_transformed_or_not(compressor, pictures, X):
    for dataset, labels in (
        (pictures, [None] * 10),
        ([(picture,) for picture in pictures], [None] * 10),
        ([(picture, i) for i, picture in enumerate(pictures)], list(range(10))),
        ([(x, i, "more") for i, x in enumerate(X)], list(range(10))),
    ):
        images, found = read(compressor, dataset)
        assert torch.equal(images, X) and found == labels


@pytest.mark.parametrize("n_workers", [0, 2])
def test_batches_and_workers_change_nothing(compressor, X, n_workers):
    state = torch.get_rng_state()
    dataset = [(x, i) for i, x in enumerate(X)]
    images, labels = read(compressor, dataset, batch_size=3, num_workers=n_workers)
    assert torch.equal(images, X) and labels == list(range(10))
    assert torch.equal(torch.get_rng_state(), state)


def test_settings_that_change_the_examples_are_refused(compressor, X):
    kwargs = {"pin_memory": False, "generator": torch.Generator(), "shuffle": False}
    assert len(read(compressor, list(X), **kwargs)[1]) == 10
    for name, value in (
        ("collate_fn", list),
        ("shuffle", True),
        ("sampler", [1, 0]),
        ("drop_last", True),
        ("in_order", False),
        ("batch_size", None),
    ):
        with pytest.raises(ValueError, match=f"kwargs_dataloader: {name}"):
            read(compressor, list(X), **{name: value})


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux")
@pytest.mark.parametrize("kwargs", [{}, {"num_workers": 2}])
def test_daemonic_processes_read_images_themselves(compressor, X, monkeypatch, kwargs):
    monkeypatch.setattr("lossyless.hub.images.available_cores", lambda: 8)
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    assert torch.equal(read(compressor, list(X), **kwargs)[0], X)


def test_unnormalised_images_are_noticed(compressor, X):
    with pytest.warns(UserWarning, match="not normalised"):
        read(compressor, TensorDataset(torch.rand(3, 3, SIDE, SIDE)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(compressor, TensorDataset(X), num_workers=0)


# --- bad examples


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (torch.zeros(3, SIDE, SIDE, dtype=torch.uint8), "uint8"),
        (torch.zeros(3, 8, 8), r"\[3, 8, 8\]"),
        (np.zeros((SIDE, SIDE, 3), np.float32), "float32"),
        ("photo.png", "str"),
    ],
    ids=str,
)
def test_what_is_no_image_is_named(compressor, X, image, found):
    with pytest.raises(SourceError, match=f"image 1 of list: .*found.*{found}"):
        read(compressor, [X[0], image])
    with pytest.raises(SourceError, match="list_iterator"):
        read(compressor, iter([X[0]]))


@pytest.mark.parametrize("n_workers", [0, 1])
def test_damaged_images_are_named_in_one_line(compressor, folder, tmp_path, n_workers):
    bad = sorted(folder.rglob("*.png"))[4]
    content = bad.read_bytes()
    for damaged in (b"", content[:60]):
        bad.write_bytes(damaged)
        with pytest.raises(SourceError) as caught:
            read(compressor, ImageFolder(folder), num_workers=n_workers)
        assert str(bad) in str(caught.value) and "Traceback" not in str(caught.value)
    bad.unlink()
    bad.symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(SourceError, match=str(bad)):
        read(compressor, ImageFolder(folder), num_workers=n_workers)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_of_undefined_range_are_refused(compressor, tmp_path, mode):
    Image.new(mode, (SIDE, SIDE)).save(tmp_path / "deep.tif")
    with pytest.raises(SourceError, match=f"deep.tif: .*mode {mode}"):
        read(compressor, ImageFolder(tmp_path))
    with Image.open(tmp_path / "deep.tif") as deep, pytest.raises(SourceError, match="image 0"):
        read(compressor, [deep])


def test_files_of_torchvision_folders_are_counted_and_named(compressor, folder):
    dataset = Subset(datasets.ImageFolder(folder), [7, 2])
    paths = [Path(dataset.dataset.samples[i][0]) for i in (7, 2)]
    assert n_source_bytes(dataset) == sum(path.stat().st_size for path in paths)
    paths[1].write_bytes(b"")
    with pytest.raises(SourceError, match=str(paths[1])):
        read(compressor, dataset)
