"""Data sets of image files, from small folders in the layouts of the originals."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.pictures import save_photographs
from hydra.utils import instantiate
from scipy.io import savemat
from torchvision import datasets

from utils.configs.composing import compose_config
from utils.data import caltech101, imagenet, kaggle
from utils.data.caltech101 import Caltech101DataModule, draw_of_each_class
from utils.data.cars196 import Cars196DataModule
from utils.data.food101 import Food101DataModule
from utils.data.imagenet import ImageNetDataModule
from utils.data.module import SPLITS, DataError
from utils.data.pets37 import Pets37DataModule

SIDE = 16


def make_food101(data_dir):
    """As food-101.tar.gz is unpacked; images are named by numbers, without order."""
    root = data_dir / "food-101"
    names = [
        f"{dish}/{i}" for dish in ("apple_pie", "baklava", "waffles") for i in (911, 17, 5, 23)
    ]
    parts = {"train": [n for n in names if not n.endswith("5")], "test": names[2::4]}
    parts["train"] = [name for name in names if name not in parts["test"]]
    (root / "meta").mkdir(parents=True)
    for split, found in parts.items():
        listed = {dish: [n for n in found if n.startswith(dish)] for dish in ("waffles", "baklava")}
        listed["apple_pie"] = [n for n in found if n.startswith("apple_pie")]
        (root / "meta" / f"{split}.json").write_text(json.dumps(listed))
    save_photographs(root / "images", [f"{name}.jpg" for name in names])


def make_cars196(data_dir):
    """With annotations as in the original: boxes, classes from 1 and file names; MATLAB structs."""
    root = data_dir / "stanford_cars"
    (root / "devkit").mkdir(parents=True)
    meta = np.array(["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "smart"], dtype=object)
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": meta[None]})
    fields = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")
    annotations = {
        "cars_train": (root / "devkit" / "cars_train_annos.mat", [3, 1, 2, 3, 1, 2, 3, 1, 2]),
        "cars_test": (root / "cars_test_annos_withlabels.mat", [2, 3, 1]),
    }
    for folder, (file, classes) in annotations.items():
        names = [f"{i + 1:05}.jpg" for i in range(len(classes))]
        save_photographs(root / folder, names)
        rows = [(1, 1, 9, 9, np.uint8(c), name) for c, name in zip(classes, names, strict=True)]
        table = np.array(rows, dtype=[(field, object) for field in fields])
        savemat(file, {"annotations": table[None]})


def make_pets37(data_dir):
    root = data_dir / "oxford-iiit-pet"
    (root / "annotations").mkdir(parents=True)
    breeds = ["Abyssinian", "american_bulldog", "Birman"]
    lines = {"trainval": [], "test": []}
    for number, breed in enumerate(breeds, start=1):
        for i in range(4):
            part = "test" if i == 2 else "trainval"
            lines[part].append(f"{breed}_{100 - i} {number} {1 + (number == 2)} 1")
    for part, found in lines.items():
        (root / "annotations" / f"{part}.txt").write_text("\n".join(found) + "\n")
    names = [f"{line.split()[0]}.jpg" for found in lines.values() for line in found]
    save_photographs(root / "images", [*names, "Abyssinian_1.jpg"])  # which is in no list


def make_caltech101(data_dir):
    root = data_dir / "caltech101" / "101_ObjectCategories"
    for name, n in {"BACKGROUND_Google": 6, "Faces": 5, "accordion": 4}.items():
        save_photographs(root / name, [f"image_{i:04}.jpg" for i in range(1, n + 1)])
    (root / "BACKGROUND_Google" / "tmp").touch()  # which the original has too


def make_imagenet(data_dir, folder="imagenet"):
    for i, wnid in enumerate(("n01440764", "n01443537", "n02110185")):
        names = [f"{wnid}_{j}.JPEG" for j in range(4 - i % 2)]
        save_photographs(data_dir / folder / "train" / wnid, names)
        save_photographs(data_dir / folder / "val" / wnid, [f"ILSVRC2012_val_{i:08}.JPEG"])


MAKERS = {
    Food101DataModule: make_food101,
    Cars196DataModule: make_cars196,
    Pets37DataModule: make_pets37,
    Caltech101DataModule: make_caltech101,
    ImageNetDataModule: make_imagenet,
}
CLASSES = {
    Food101DataModule: ("apple_pie", "baklava", "waffles"),
    Cars196DataModule: ("AM General Hummer SUV 2000", "Acura RL Sedan 2012", "smart"),
    Pets37DataModule: ("Abyssinian", "American Bulldog", "Birman"),
    Caltech101DataModule: ("BACKGROUND_Google", "Faces", "accordion"),
    ImageNetDataModule: ("n01440764", "n01443537", "n02110185"),
}
SIZES = {
    Food101DataModule: {"train": 9, "test": 3},
    Cars196DataModule: {"train": 9, "test": 3},
    Pets37DataModule: {"train": 9, "test": 3},
    Caltech101DataModule: {"train": 9, "test": 6},
    ImageNetDataModule: {"train": 11, "test": 3},
}
FOLDERS = {
    Food101DataModule: "food-101",
    Cars196DataModule: "stanford_cars",
    Pets37DataModule: "oxford-iiit-pet",
    Caltech101DataModule: "caltech101",
    ImageNetDataModule: "imagenet",
}
DOWNLOADED = [Food101DataModule, Pets37DataModule, Caltech101DataModule]
BY_HAND = [Cars196DataModule, ImageNetDataModule]


@pytest.fixture(params=MAKERS, ids=lambda data_set: data_set.__name__.removesuffix("DataModule"))
def data_set(request):
    return request.param


@pytest.fixture
def make(monkeypatch, tmp_path):
    """Builds a data set of three classes of small photographs, or none if `is_there` is false."""
    for module in MAKERS:
        monkeypatch.setattr(module, "n_outputs", 3)
        monkeypatch.setattr(module, "SIZES", SIZES[module], raising=False)
    monkeypatch.setattr(caltech101, "N_IMAGES", sum(SIZES[Caltech101DataModule].values()))
    monkeypatch.setattr(caltech101, "SMALLEST_CLASS", 4)

    def refuse():
        raise DataError("no token")

    monkeypatch.setattr(kaggle, "connect", refuse)

    def make(data_set, is_there=True, **kwargs):
        if is_there and not (tmp_path / FOLDERS[data_set]).exists():
            MAKERS[data_set](tmp_path)
        if data_set is Caltech101DataModule:
            kwargs = {"n_train_per_class": 3} | kwargs
        defaults = {"side": SIDE, "data_dir": str(tmp_path), "val_fraction": 1 / 3}
        return data_set(**(defaults | kwargs))

    return make


def paths(data, split):
    source, members = data.splits[split]
    return [Path(source.paths[i]) for i in members.tolist()]


# --- all of them


def test_images_and_their_classes_are_found(make, data_set):
    data = make(data_set, eval_batch_size=4, auxiliary="positive", equivalence=["label", "hflip"])
    for split in SPLITS:
        batches = list(data.loader(split, shuffle=False))
        x, y, aux = (torch.cat(parts) for parts in zip(*batches, strict=True))
        assert x.shape == aux.shape == (data.n_examples(split), 3, SIDE, SIDE)
        assert torch.equal(y, data.labels(split)) and set(y.tolist()) == {0, 1, 2}
    assert data.class_names == CLASSES[data_set]
    n_train = data.n_examples("train") + data.n_examples("val")
    assert {"train": n_train, "test": data.n_examples("test")} == SIZES[data_set]


def test_each_image_is_in_one_split_and_the_same_for_all_seeds(make, data_set):
    found = {split: paths(make(data_set, seed=1), split) for split in SPLITS}
    everything = [path for split in SPLITS for path in found[split]]
    assert len(set(everything)) == len(everything) == sum(SIZES[data_set].values())
    assert found == {split: paths(make(data_set, seed=2), split) for split in SPLITS}
    assert all(path.is_file() for path in everything)


def test_workers_change_nothing(make, data_set):
    settings = {"batch_size": 3, "equivalence": ["hflip", "resize_crop"], "auxiliary": "positive"}
    alone, together = (
        list(make(data_set, n_workers=n, **settings).loader("train")) for n in (0, 2)
    )
    for batch, other in zip(alone, together, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(batch, other, strict=True))


@pytest.mark.parametrize("split", ["train", "test"])
def test_missing_images_are_counted(make, data_set, split):
    paths(make(data_set), split)[0].unlink()
    imagenet.list_folder.cache_clear()
    if data_set is Caltech101DataModule:
        split = "test"  # where all images go that are not for training
    n = SIZES[data_set][split]
    is_class_empty = data_set is ImageNetDataModule and split == "test"
    message = "n01440764" if is_class_empty else f"{n - 1} of {n} images of '{split}'"
    with pytest.raises(DataError, match=message):
        make(data_set).setup()


def test_a_damaged_image_is_named(make, data_set):
    data = make(data_set)
    damaged = paths(data, "test")[1]
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(DataError, match=f"cannot read image.*{damaged.name}"):
        list(data.loader("test"))


NAMES = {
    "food101": Food101DataModule,
    "cars196": Cars196DataModule,
    "pets37": Pets37DataModule,
    "caltech101": Caltech101DataModule,
    "imagenet": ImageNetDataModule,
}


@pytest.mark.parametrize("name", NAMES)
def test_the_config_agrees_with_the_data_set(name):
    cfg = compose_config([f"data@data_feat={name}"]).data_feat
    data = instantiate(cfg.kwargs)
    assert type(data) is NAMES[name] and cfg.name == name
    assert (tuple(cfg.shape), cfg.kind, cfg.task) == (data.shape, data.kind, data.task)
    assert cfg.n_outputs == data.n_outputs
    n_train = data.SIZES["train"]
    assert cfg.length == n_train - round(cfg.kwargs.val_fraction * n_train)


# --- missing data sets


@pytest.mark.parametrize("data_set", DOWNLOADED, ids=lambda data_set: FOLDERS[data_set])
def test_a_failing_download_says_what_to_put_where(make, data_set, monkeypatch, tmp_path, capsys):
    def no_network(*args, **kwargs):
        raise OSError("Name or service not known")

    for module in (datasets.food101, datasets.oxford_iiit_pet, datasets.caltech):
        monkeypatch.setattr(module, "download_and_extract_archive", no_network)
    with pytest.raises(DataError, match="service not known.*tar.gz.*unpacked in") as error:
        make(data_set, is_there=False).setup()
    assert str(tmp_path) in str(error.value)
    printed = capsys.readouterr().out
    assert "downloading" in printed and ("GB" in printed or "MB" in printed)


@pytest.mark.parametrize("data_set", DOWNLOADED, ids=lambda data_set: FOLDERS[data_set])
def test_what_is_missing_is_downloaded_once(make, data_set, monkeypatch, tmp_path, capsys):
    urls = []

    def download(url, *args, **kwargs):
        urls.append(url)
        if not (tmp_path / FOLDERS[data_set] / "annotations").exists():
            MAKERS[data_set](tmp_path)
        if data_set is Caltech101DataModule:  # leaves of the download that torchvision removes
            (tmp_path / "caltech101" / "caltech-101").mkdir(exist_ok=True)
            (tmp_path / "caltech101" / "caltech-101.zip").touch()

    for module in (datasets.food101, datasets.oxford_iiit_pet, datasets.caltech):
        monkeypatch.setattr(module, "download_and_extract_archive", download)
    make(data_set, is_there=False).setup()
    assert urls and "downloading" in capsys.readouterr().out
    n_downloads = len(urls)
    make(data_set, is_there=False).setup()
    assert len(urls) == n_downloads and not capsys.readouterr().out


@pytest.mark.parametrize(
    ("data_set", "left"),
    [
        (Food101DataModule, "food-101/meta/test.json"),
        (Food101DataModule, "food-101/meta/train.json"),
        (Pets37DataModule, "oxford-iiit-pet/annotations/test.txt"),
    ],
)
def test_half_unpacked_lists_are_named(make, data_set, left, tmp_path):
    make(data_set).setup()
    file = tmp_path / left
    content = file.read_text()
    file.unlink()
    with pytest.raises(DataError, match=f"{file.name}.*delete what an earlier download left"):
        make(data_set).setup()
    file.write_text(content[: len(content) // 2])
    with pytest.raises(DataError):
        make(data_set).setup()


@pytest.mark.parametrize("data_set", BY_HAND, ids=lambda data_set: FOLDERS[data_set])
def test_what_cannot_be_downloaded_comes_with_its_tree(make, data_set, tmp_path):
    trees = {
        Cars196DataModule: ["cars_train/00001.jpg", "devkit/cars_meta.mat", "annos_withlabels.mat"],
        ImageNetDataModule: ["train/n01440764/*.JPEG", "val/n01440764/*.JPEG", "image-net.org"],
    }
    with pytest.raises(DataError) as error:
        make(data_set, is_there=False).setup()
    message = str(error.value)
    assert str(tmp_path) in message and FOLDERS[data_set] in message
    assert all(part in message for part in trees[data_set])
    missing = paths(make(data_set), "train")[0]
    missing.unlink()
    imagenet.list_folder.cache_clear()
    with pytest.raises(DataError) as error:
        make(data_set).setup()
    assert all(part in str(error.value) for part in trees[data_set])
    assert "delete the folder" not in str(error.value)


# --- one by one


def test_cars_come_from_kaggle_where_its_client_has_a_token(make, tmp_path, monkeypatch):
    make_cars196(tmp_path / "original")

    class Client:
        def dataset_download_files(self, dataset, path, force, quiet, unzip):
            archive = Path(path, dataset.split("/")[1])
            shutil.make_archive(archive, "zip", tmp_path / "original")

    monkeypatch.setattr(kaggle, "connect", Client)
    for _ in range(2):
        data = make(Cars196DataModule, is_there=False, data_dir=str(tmp_path / "data"))
        assert {split: data.n_examples(split) for split in ("train", "val", "test")} == {
            "train": 6, "val": 3, "test": 3,
        }  # fmt: skip
        monkeypatch.setattr(kaggle, "connect", None)
    assert [path.name for path in (tmp_path / "data").glob("[!.]*")] == ["stanford_cars"]


@pytest.mark.parametrize(
    "file",
    [
        "devkit/cars_meta.mat",
        "devkit/cars_train_annos.mat",
        "cars_test_annos_withlabels.mat",
    ],
)
@pytest.mark.parametrize("n_left", [None, 0, 10, 150, 200])
def test_damaged_annotations_of_cars_are_data_errors(make, tmp_path, file, n_left):
    make_cars196(tmp_path)
    file = tmp_path / "stanford_cars" / file
    if n_left is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:n_left])
    with pytest.raises(DataError, match="split of Stanford Cars is missing or damaged"):
        make(Cars196DataModule).setup()


def test_food_101_comes_in_the_order_of_its_lists_with_classes_in_alphabetical_order(make):
    data = make(Food101DataModule)
    listed = [f"{path.parent.name}/{path.stem}" for path in paths(data, "test")]
    assert listed == ["waffles/5", "baklava/5", "apple_pie/5"]
    assert data.labels("test").tolist() == [2, 1, 0]


def test_caltech_101_has_as_many_training_images_of_each_class(make):
    for n in (2, 3):
        data = make(Caltech101DataModule, n_train_per_class=n, val_fraction=0.5)
        labels = torch.cat([data.labels("train"), data.labels("val")])
        assert labels.bincount().tolist() == [n, n, n]
        assert data.labels("test").bincount().tolist() == [6 - n, 5 - n, 4 - n]
    for n in (0, 4):
        with pytest.raises(ValueError, match=r"n_train_per_class must lie in \[1, 3\]"):
            make(Caltech101DataModule, n_train_per_class=n)


def test_more_training_images_of_a_class_contain_those_of_less():
    labels = torch.tensor([0] * 40 + [1] * 31 + [2] * 800)[torch.randperm(871)]
    masks = [draw_of_each_class(labels, n) for n in (5, 30, 100)]
    assert [labels[mask].bincount().tolist() for mask in masks] == [
        [5] * 3,
        [30] * 3,
        [40, 31, 100],
    ]
    assert (masks[0] <= masks[1]).all() and (masks[1] <= masks[2]).all()


def test_the_split_of_caltech_101_never_changes():
    chosen = draw_of_each_class(torch.tensor([0] * 8 + [1] * 8), 3).nonzero()[:, 0]
    assert chosen.tolist() == [1, 2, 6, 9, 11, 14]


def test_small_images_of_imagenet_are_preferred(make, tmp_path):
    make_imagenet(tmp_path, "imagenet256")
    assert {path.parents[2].name for path in paths(make(ImageNetDataModule), "train")} == {
        "imagenet256"
    }


def test_imagenet_is_listed_once_per_process(make, monkeypatch):
    listed = []
    list_folder = imagenet.ImageFolder

    def noting(folder, *args, **kwargs):
        listed.append(folder)
        return list_folder(folder, *args, **kwargs)

    monkeypatch.setattr(imagenet, "ImageFolder", noting)
    for _ in range(2):
        make(ImageNetDataModule).setup()
    assert len(listed) == len(set(listed)) == 2  # train and val


def test_validation_images_of_imagenet_that_are_not_sorted_by_class_are_noticed(make, tmp_path):
    make_imagenet(tmp_path)
    for image in list(tmp_path.glob("imagenet/val/*/*.JPEG")):
        image.rename(image.parents[1] / image.name)
        image.parent.rmdir()
    with pytest.raises(DataError, match="class folder.*imagenet/val"):
        make(ImageNetDataModule).setup()


def test_classes_that_are_in_one_split_of_imagenet_only_are_named(make, tmp_path):
    make_imagenet(tmp_path)
    (tmp_path / "imagenet/val/n02110185").rename(tmp_path / "imagenet/val/n02110186")
    with pytest.raises(DataError, match="2 classes are in only one of.*n02110185"):
        make(ImageNetDataModule, is_complete=False).setup()
