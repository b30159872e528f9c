"""Images of folders and data sets reach the compressor in order, and bad ones are named."""

import multiprocessing
import os
import signal
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
from lossyless.parallel import WorkerError


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


# --- pixels


def turned(image: Image.Image) -> dict:
    """The image lying on its side, and the EXIF tag that turns it upright."""
    exif = Image.Exif()
    exif[0x0112] = 8
    return {"image": image.transpose(Image.Transpose.ROTATE_270), "exif": exif}


def see_through(image: Image.Image) -> dict:
    """The image as RGBA, with transparent pixels where it is white."""
    alpha = Image.fromarray(255 * (np.asarray(image) != 255).any(2).astype(np.uint8))
    black = Image.composite(image, Image.new("RGB", image.size), alpha)
    return {"image": Image.merge("RGBA", [*black.split(), alpha])}


def sixteen_bits(image: Image.Image) -> dict:
    return {"image": Image.fromarray(np.uint16(257) * np.asarray(image.convert("L")))}


@pytest.fixture
def picture() -> Image.Image:
    """Ten levels of grey, and white; all of them have exact 16-bit values."""
    grey = np.random.default_rng(0).integers(0, 10, (SIDE, SIDE + 9), dtype=np.uint8) * 20
    grey[:9] = 255
    return Image.fromarray(grey).convert("RGB")


@pytest.mark.parametrize(
    ("name", "store"),
    [
        ("turned.png", turned),
        ("turned.webp", lambda image: turned(image) | {"lossless": True}),
        ("see-through.png", see_through),
        ("palette.png", lambda image: {"image": image.quantize(16)}),
        *((name, sixteen_bits) for name in ("deep.png", "deep.tif", "deep.pgm")),
    ],
)
def test_files_that_look_alike_give_the_same_tensor(compressor, picture, tmp_path, name, store):
    stored = store(picture)
    stored.pop("image").save(tmp_path / name, **stored)
    expected = compressor.transform(picture)
    clips_own = compressor.transform.transforms[1]
    assert torch.equal(expected, clips_own(picture))  # ordinary images stay as they are
    (of_folder, _) = Examples(ImageFolder(tmp_path), compressor.transform, SIDE)[0]
    with Image.open(tmp_path / name) as image:
        of_list, _ = Examples([image], compressor.transform, SIDE)[0]
        by_users = compressor.transform(image)
    for found in (of_folder, of_list, by_users):
        assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("integers.tif", Image.new("I", (SIDE, SIDE))),
        ("floats.tif", Image.new("F", (SIDE, SIDE))),
        ("12bits.png", Image.fromarray(np.full((SIDE, SIDE), 4095, np.uint16))),
    ],
)
def test_files_of_undefined_range_are_named(compressor, tmp_path, name, image):
    (tmp_path / "class").mkdir()
    image.save(tmp_path / "class" / name)
    users_own = datasets.ImageFolder(tmp_path, compressor.transform, loader=Image.open)
    for dataset in (ImageFolder(tmp_path), users_own):
        with pytest.raises(SourceError, match=f"{name}: .*range"):
            read(compressor, dataset)
    with pytest.raises(SourceError, match="image 0"):
        read(compressor, [Image.open(tmp_path / "class" / name)])


def test_long_images_cost_no_more_than_they_show(compressor, tmp_path):
    """Resized whole, this one would need 10 GB."""
    Image.new("L", (1, 60_000), 99).save(tmp_path / "long.png")
    (image, _) = Examples(ImageFolder(tmp_path), compressor.transform, SIDE)[0]
    assert torch.equal(image, compressor.transform(Image.new("RGB", (SIDE, SIDE), (99, 99, 99))))


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


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux")
@pytest.mark.filterwarnings("ignore:This process")
def test_a_process_that_is_killed_is_one_line(compressor):
    class Killing(list):
        def __getitem__(self, i):
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(WorkerError, match="--workers 0") as caught:
        read(compressor, Killing([0]), num_workers=1)
    assert "\n" not in str(caught.value)


def test_files_of_torchvision_folders_are_counted_and_named(compressor, folder):
    dataset = Subset(datasets.ImageFolder(folder), [7, 2])
    paths = [Path(dataset.dataset.samples[i][0]) for i in (7, 2)]
    assert n_source_bytes(dataset) == sum(path.stat().st_size for path in paths)
    paths[1].write_bytes(b"")
    with pytest.raises(SourceError, match=str(paths[1])):
        read(compressor, dataset)
