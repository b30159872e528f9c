"""The contract of all sources of images, on small data sets in the layouts of the originals."""

import shutil
import sys
import urllib.request
from pathlib import Path
from urllib.error import URLError

import h5py
import numpy as np
import pytest
import requests
import torch
from helpers.originals import MAKERS, ON_DISK, make_cars196, make_imagenet, number_of, open_small
from helpers.tiny import call
from hydra.utils import get_method, instantiate
from PIL import Image
from torchvision import datasets

from utils.configs.composing import compose_config
from utils.configs.overrides import CONF_DIR
from utils.data import kaggle
from utils.data.images import ImageDataModule
from utils.data.module import SPLITS, DataError
from utils.data.sources import coco, pcam, photos, torchvision_sets
from utils.data.sources.photos import caltech101, cars196, food101, imagenet, pets37
from utils.data.sources.torchvision_sets import mnist
from utils.runs.saved_runs import MOVED

IN_FILES = [data_set for data_set in ON_DISK if data_set is not pcam.pcam]
BY_HAND = [cars196, imagenet]
FOLDERS = {
    food101: "food-101",
    cars196: "stanford_cars",
    pets37: "oxford-iiit-pet",
    caltech101: "caltech101",
    imagenet: "imagenet",
}


def name_of(data_set):
    return data_set.__name__


@pytest.fixture(params=MAKERS, ids=name_of)
def data_set(request):
    return request.param


@pytest.fixture
def make(monkeypatch, tmp_path):
    """Builds a small data set, which is written first unless `exists` is false."""
    truths = {}

    def refuse():
        raise DataError("no token")

    monkeypatch.setattr(kaggle, "connect", refuse)

    def make(data_set, exists=True, **kwargs):
        if exists and data_set not in truths:
            truths[data_set] = MAKERS[data_set](tmp_path, monkeypatch)
        truth = truths.get(data_set, {"train": {0: 0}, "test": {0: 0}})
        data = open_small(data_set, tmp_path, truth, **kwargs)
        data.truth = truth
        return data

    return make


@pytest.fixture
def no_network(monkeypatch):
    class Refused(Exception):
        """Google Drive's client has errors that are neither OSError nor RuntimeError."""

    def fail_with(error):
        def fail(*args, **kwargs):
            raise error("Name or service not known")

        return fail

    monkeypatch.setattr(urllib.request, "urlopen", fail_with(URLError))
    monkeypatch.setattr(requests, "get", fail_with(requests.ConnectionError))
    monkeypatch.setattr(datasets.pcam, "download_file_from_google_drive", fail_with(Refused))
    monkeypatch.setattr("utils.data.downloads.WAITS", ())


def gather(loader):
    """All x, y and aux of one iteration, as far as they are there."""
    return [None if None in parts[:1] else torch.cat(parts) for parts in zip(*loader, strict=True)]


def files(data, split):
    examples = data.splits[split]
    return [Path(examples.images.name(i)) for i in examples.members.tolist()]


def assert_same_batches(data, other, split="train"):
    for batch, same in zip(data.loader(split), other.loader(split), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(batch, same, strict=True))


# --- all sources


def test_each_image_comes_once_with_its_target_in_the_same_split_for_all_seeds(make, data_set):
    data, other = make(data_set, seed=1, eval_batch_size=4), make(data_set, seed=2)
    found = {}
    for split in SPLITS:
        x, y, _ = gather(data.loader(split, shuffle=False))
        assert x.shape == (data.n_examples(split), *data.shape) and len(y) == len(x)
        assert x.dtype == torch.float32 and x.min() >= 0 and x.max() <= 1
        found[split] = number_of(x)
        assert number_of(gather(other.loader(split, shuffle=False))[0]) == found[split]
        if data.task == "classification":
            known = data.truth.get(split, data.truth["train"])
            assert y.tolist() == [known[i] for i in found[split]]
        else:
            assert y.shape == (len(x), data.n_outputs)
    if "val" not in data.truth:
        assert len(found["val"]) == round(len(data.truth["train"]) / 3)
        found["train"] += found.pop("val")
    assert {s: sorted(numbers) for s, numbers in found.items()} == {
        split: sorted(images) for split, images in data.truth.items()
    }


def test_the_seed_decides_the_batches_and_global_randomness_does_not(make, data_set):
    settings = {"auxiliary": "positive", "equivalence": ["rotation", "erasing"]}
    data, again = make(data_set, **settings), make(data_set, **settings)
    state = torch.get_rng_state()
    orders = [gather(data.loader("train", epoch=k))[0] for k in range(2)]
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert_same_batches(data, again)
    other = gather(make(data_set, seed=7, **settings).loader("train"))[0]
    assert not torch.equal(*orders) and not torch.equal(orders[0], other)


def test_configs_agree_with_their_data_sets():
    data_sets = set()
    for file in CONF_DIR.glob("data/*.yaml"):
        cfg = compose_config([f"data@data_feat={file.stem}"]).data_feat
        data = instantiate(cfg.kwargs)
        facts = (tuple(cfg.shape), cfg.kind, cfg.task, cfg.n_outputs)
        assert facts == (data.shape, data.kind, data.task, data.n_outputs)
        assert cfg.name == file.stem
        if not isinstance(data, ImageDataModule):
            continue
        data_sets.add(cfg.kwargs._target_)
        assert cfg.mean is None or len(cfg.mean) == len(cfg.std) == data.shape[0]
        if sizes := data.source.sizes:
            n = sizes["train"]
            assert cfg.length == n - (0 if "val" in sizes else round(data.val_fraction * n))
    assert {target.rpartition(".")[2] for target in data_sets} >= set(map(name_of, MAKERS))


def test_sources_keep_the_names_that_identify_cached_features():
    for before, now in MOVED.items():
        if now.startswith("utils.data.sources."):
            data = get_method(now)(side=16)
            assert f"{data.source.name}DataModule" == before.rpartition(".")[2]


# --- images on disk


@pytest.mark.parametrize("data_set", [food101, pcam.pcam], ids=name_of)
def test_workers_change_nothing(make, data_set):
    settings = {"equivalence": ["hflip", "resize_crop"], "auxiliary": "positive"}
    assert_same_batches(*(make(data_set, n_workers=n, **settings) for n in (0, 2)))


@pytest.mark.parametrize("data_set", IN_FILES, ids=name_of)
def test_deleted_and_damaged_images_are_noticed(make, data_set):
    data = make(data_set)
    damaged, deleted = files(data, "test")[1], files(data, "train")[0]
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(DataError, match=f"cannot read image.*{damaged.name}"):
        list(data.loader("test"))
    deleted.unlink()
    photos.list_folder.cache_clear()
    split = "test" if data_set is caltech101 else "train"  # all that is not for training
    n = len(data.truth[split])
    with pytest.raises(DataError, match=f"{n - 1} of {n} images of '{split}'"):
        make(data_set).setup()


READ = r"""
import sys
from pathlib import Path
from utils.data.coco_captions import read_captions
from utils.data.sources.photos import imagenet

data = imagenet(side=8, val_fraction=0.5, is_complete=False, data_dir=sys.argv[1])
(batch,) = data.loader("test")
assert len(batch.x) == 3
assert read_captions(Path(sys.argv[1]) / "coco", "test").texts[0] == "caf\u00e9"
"""


def test_names_of_files_and_captions_are_utf_8_whatever_the_locale(tmp_path, monkeypatch):
    folder = tmp_path / "données"
    MAKERS[imagenet](folder, monkeypatch)
    for image in list(folder.rglob("*.JPEG")):
        image.rename(image.with_stem(f"œuf_{image.stem}"))
    MAKERS[coco.coco](folder, monkeypatch)
    file = folder / "coco/annotations/captions_val2017.json"
    file.write_text(file.read_text().replace("a 12 val2017", "café"), encoding="utf-8")
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for name, value in locale.items():
        monkeypatch.setenv(name, value)
    result = call(sys.executable, "-c", READ, str(folder))
    assert result.returncode == 0, result.stderr


# --- downloads


def test_a_failing_download_says_what_to_put_where(make, data_set, no_network, tmp_path, capsys):
    with pytest.raises(DataError) as error:
        make(data_set, exists=False).setup()
    message = str(error.value)
    assert str(tmp_path) in message
    if data_set in BY_HAND:
        expected = {cars196: "cars_meta.mat", imagenet: "val/n01440764/*.JPEG"}[data_set]
        assert FOLDERS[data_set] in message and expected in message
    else:
        assert "service not known" in message and ("gz" in message or ".zip" in message)
        printed = capsys.readouterr().out
        assert "downloading" in printed and ("GB" in printed or "MB" in printed)


@pytest.mark.parametrize("data_set", [food101, pets37, caltech101], ids=name_of)
def test_what_is_missing_is_downloaded_once(make, data_set, monkeypatch, tmp_path, capsys):
    urls = []

    def download(url, *args, **kwargs):
        urls.append(url)
        if not (tmp_path / FOLDERS[data_set] / "annotations").exists():
            MAKERS[data_set](tmp_path, monkeypatch)
        if data_set is caltech101:  # leaves of the download that torchvision removes
            (tmp_path / "caltech101" / "caltech-101").mkdir(exist_ok=True)
            (tmp_path / "caltech101" / "caltech-101.zip").touch()

    for module in (datasets.food101, datasets.oxford_iiit_pet, datasets.caltech):
        monkeypatch.setattr(module, "download_and_extract_archive", download)
    make(data_set, exists=False, is_complete=False).setup()
    assert urls and "downloading" in capsys.readouterr().out
    n_downloads = len(urls)
    make(data_set, exists=False, is_complete=False).setup()
    assert len(urls) == n_downloads and not capsys.readouterr().out


@pytest.mark.parametrize(
    ("data_set", "file"),
    [(food101, "food-101/meta/test.json"), (pets37, "oxford-iiit-pet/annotations/test.txt")],
)
def test_incomplete_lists_of_images_are_data_errors(make, no_network, data_set, file, tmp_path):
    make(data_set).setup()
    file = tmp_path / file
    content = file.read_text()
    file.write_text(content[: len(content) // 2])
    with pytest.raises(DataError):
        make(data_set).setup()
    file.unlink()
    with pytest.raises(DataError, match=file.name):
        make(data_set).setup()


@pytest.mark.parametrize(
    "data_set", [data_set for data_set in MAKERS if data_set not in ON_DISK], ids=name_of
)
def test_archives_are_unpacked_once_and_again_when_files_are_lost(
    make, data_set, no_network, tmp_path, capsys
):
    expected = make(data_set).splits["test"]
    assert "downloading" in capsys.readouterr().out  # here: unpacking the archive
    make(data_set).setup()
    assert not capsys.readouterr().out
    unpacked = [path for path in tmp_path.rglob("*") if path.is_file() and "gz" not in path.suffix]
    next(path for path in sorted(unpacked) if "test" in path.name or "t10k" in path.name).unlink()
    found = make(data_set).splits["test"]
    assert torch.equal(found.inputs, expected.inputs)
    assert torch.equal(found.targets, expected.targets)
    for path in tmp_path.rglob("*.gz"):
        path.write_bytes(path.read_bytes()[:-20])
    for path in unpacked:
        path.unlink(missing_ok=True)
    with pytest.raises(DataError):
        make(data_set).setup()


# --- MNIST


def test_damaged_files_of_mnist_are_data_errors(make, tmp_path):
    make(mnist).setup()
    file = tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    content = file.read_bytes()
    for n_left in (0, 3, 25):
        file.write_bytes(content[:n_left])
        with pytest.raises(DataError, match="MNIST"):
            make(mnist).setup()


@pytest.mark.parametrize("side", [16, 64])
def test_mnist_is_resized_as_pillow_does_it(make, side, monkeypatch):
    data = make(mnist, side=side)  # 64: batch by batch
    original = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)

    def to_tensors(images):
        pixels, targets = torchvision_sets.mnist_tensors(images)
        pixels[:] = torch.from_numpy(original)
        return pixels, targets

    monkeypatch.setitem(data.source.open.keywords, "to_tensors", to_tensors)
    x = next(iter(data.loader("test"))).x
    expected = Image.fromarray(original).resize((side, side), Image.Resampling.BILINEAR)
    assert (255 * x[0, 0] - torch.tensor(np.asarray(expected))).abs().max() < 2.01


# --- photographs


def test_food_101_comes_in_the_order_of_its_lists_with_classes_in_alphabetical_order(make):
    data = make(food101)
    assert [path.parent.name for path in files(data, "test")] == ["waffles", "baklava", "apple_pie"]
    assert data.splits["test"].targets.tolist() == [2, 1, 0]


def test_cars_come_from_kaggle_if_its_client_has_a_token(tmp_path, monkeypatch):
    truth = make_cars196(tmp_path / "original", monkeypatch)

    class Client:
        def dataset_download_files(self, dataset, path, force, quiet, unzip):
            archive = Path(path, dataset.split("/")[1])
            shutil.make_archive(archive, "zip", tmp_path / "original")

    monkeypatch.setattr(kaggle, "connect", Client)
    for _ in range(2):
        assert open_small(cars196, tmp_path / "data", truth).n_examples("train") == 6
        monkeypatch.setattr(kaggle, "connect", None)
    assert [path.name for path in (tmp_path / "data").glob("[!.]*")] == ["stanford_cars"]


def test_damaged_annotations_of_cars_are_data_errors(make, tmp_path):
    make(cars196)
    for name in ("devkit/cars_train_annos.mat", "cars_test_annos_withlabels.mat"):
        file = tmp_path / "stanford_cars" / name
        content = file.read_bytes()
        for n_left in (200, 150, 10, 0):
            file.write_bytes(content[:n_left])
            with pytest.raises(DataError, match="split of Stanford Cars"):
                make(cars196).setup()
        file.write_bytes(content)
    file.unlink()
    with pytest.raises(DataError, match="test split of Stanford Cars"):
        make(cars196).setup()


def test_caltech_101_has_as_many_training_images_of_each_class(make):
    for n in (2, 3):
        data = make(caltech101, n_train_per_class=n, val_fraction=0.5, is_complete=False)
        labels = torch.cat([data.splits[split].targets for split in ("train", "val")])
        assert labels.bincount().tolist() == [n, n, n]
    for n in (0, 31):
        with pytest.raises(ValueError, match=f"got {n}"):
            caltech101(side=16, n_train_per_class=n)
    # the same draw on every machine
    chosen = photos.draw_of_each_class(torch.tensor([0] * 8 + [1] * 8), 3).nonzero()[:, 0]
    assert chosen.tolist() == [1, 2, 6, 9, 11, 14]


def test_small_images_of_imagenet_are_preferred_and_listed_once(make, monkeypatch, tmp_path):
    make_imagenet(tmp_path, monkeypatch, "imagenet256")
    listed = []
    list_folder = photos.ImageFolder
    monkeypatch.setattr(
        photos, "ImageFolder", lambda path: listed.append(path.parts[-2:]) or list_folder(path)
    )
    for _ in range(2):
        assert {p.parents[2].name for p in files(make(imagenet), "train")} == {"imagenet256"}
        photos.list_folder.cache_info()
    assert listed.count(("imagenet256", "train")) == listed.count(("imagenet256", "val")) == 1


def test_folders_of_imagenet_that_are_no_classes_are_noticed(make, tmp_path):
    make(imagenet)
    (tmp_path / "imagenet/val/n02110185").rename(tmp_path / "imagenet/val/n02110186")
    with pytest.raises(DataError, match="2 classes.*n02110185"):
        make(imagenet).setup()
    photos.list_folder.cache_clear()
    for image in list(tmp_path.glob("imagenet/val/*/*.JPEG")):
        image.rename(image.parents[1] / image.name)
        image.parent.rmdir()
    with pytest.raises(DataError, match="imagenet/val"):
        make(imagenet).setup()


# --- PCam


def pcam_file(folder, part, content):
    return folder / "pcam" / pcam.FILE.format(part=part, content=content)


def test_damaged_files_of_pcam_are_named(make, tmp_path):
    make(pcam.pcam)
    for content in "xy":
        path = pcam_file(tmp_path, "train", content)
        original = path.read_bytes()
        path.write_bytes(original[: len(original) // 2])
        with pytest.raises(DataError, match=path.name):
            make(pcam.pcam).setup()
        with h5py.File(path, "w") as file:
            file["pictures"] = np.zeros(3)
        with pytest.raises(DataError, match=path.name):
            make(pcam.pcam).setup()
        path.write_bytes(original)
    with h5py.File(pcam_file(tmp_path, "valid", "y"), "w") as targets:
        targets["y"] = np.zeros((5, 1, 1, 1), np.uint8)
    with pytest.raises(DataError, match=r"split_valid_x.h5.*\[5, H, W, 3\]"):
        make(pcam.pcam).setup()


def test_an_image_of_pcam_that_cannot_be_decompressed_is_named(make, tmp_path):
    data = make(pcam.pcam)
    path = pcam_file(tmp_path, "valid", "x")
    with h5py.File(path, "w") as images:
        pixels = np.random.default_rng(0).integers(0, 256, (6, 96, 96, 3), dtype=np.uint8)
        images.create_dataset("x", data=pixels, chunks=(1, 96, 96, 3), compression="gzip")
        offset = images["x"].id.get_chunk_info(4).byte_offset
    damaged = bytearray(path.read_bytes())
    damaged[offset : offset + 50] = bytes(50)
    path.write_bytes(damaged)
    with pytest.raises(DataError, match="cannot read image 4 of .*split_valid_x.h5"):
        list(data.loader("val"))
