"""Small data sets with the file layouts of the originals.

Each image has a single grey value, a multiple of `STEP`. Dividing by `STEP` gives the image's
number, which identifies it after any processing.
"""

import gzip
import hashlib
import io
import json
import pickle
import struct
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.io import savemat
from torch import Tensor
from torchvision import datasets

from helpers.pictures import save_plain
from utils.data.examples import hold_out
from utils.data.images import ImageDataModule
from utils.data.sources import coco, galaxy, pcam, photos, torchvision_sets

STEP = 4
Truth = dict[str, dict[int, int]]  # for each original split, image number -> class


def number_of(images: Tensor) -> list[int]:
    """Numbers of float images [N, C, H, W]."""
    side = images.shape[-1] // 2
    return (255 * images[:, 0, side, side] / STEP).round().long().tolist()


def files(data: ImageDataModule, split: str) -> list[Path]:
    """The image files of a split, in order."""
    examples = data.splits[split]
    return [Path(examples.images.name(i)) for i in examples.members.tolist()]


def listed(n_classes: int, n_train: int, n_test: int) -> Truth:
    """Map image numbers to classes, in turn; the images of the test split come last."""
    classes = [i % n_classes for i in range(n_classes * (n_train + n_test))]
    n = n_classes * n_train
    return {"train": dict(enumerate(classes[:n])), "test": dict(enumerate(classes[n:], start=n))}


def save(path: Path, number: int) -> None:
    save_plain(path, STEP * number, size=(17 + number % 5, 23 - number % 7))


# --- photographs


def make_food101(data_dir: Path, _: pytest.MonkeyPatch) -> Truth:
    truth, root = listed(3, 3, 1), data_dir / "food-101"
    dishes = ("apple_pie", "baklava", "waffles")
    (root / "meta").mkdir(parents=True)
    for split, images in truth.items():
        lists = {d: [f"{d}/{i}" for i, c in images.items() if dishes[c] == d] for d in dishes[::-1]}
        (root / "meta" / f"{split}.json").write_text(json.dumps(lists))
        for i, c in images.items():
            save(root / "images" / dishes[c] / f"{i}.jpg", i)
    return truth


def make_cars196(data_dir: Path, _: pytest.MonkeyPatch) -> Truth:
    """Annotations are MATLAB structs, as in the original: boxes, classes from 1, and file names."""
    truth, root = listed(3, 3, 1), data_dir / "stanford_cars"
    (root / "devkit").mkdir(parents=True)
    models = np.array(["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "smart"], dtype=object)
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": models[None]})
    fields = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")
    files = {
        "train": root / "devkit" / "cars_train_annos.mat",
        "test": root / "cars_test_annos_withlabels.mat",
    }
    for split, images in truth.items():
        rows = [(1, 1, 9, 9, np.uint8(c + 1), f"{i:05}.jpg") for i, c in images.items()]
        table = np.array(rows, dtype=[(field, object) for field in fields])
        savemat(files[split], {"annotations": table[None]})
        for i in images:
            save(root / f"cars_{split}" / f"{i:05}.jpg", i)
    return truth


def make_pets37(data_dir: Path, _: pytest.MonkeyPatch) -> Truth:
    truth, root = listed(3, 3, 1), data_dir / "oxford-iiit-pet"
    (root / "annotations").mkdir(parents=True)
    breeds = ("Abyssinian", "american_bulldog", "Birman")
    for split, part in (("train", "trainval"), ("test", "test")):
        lines = [f"{breeds[c]}_{i} {c + 1} {1 + (c == 2)} 1\n" for i, c in truth[split].items()]
        (root / "annotations" / f"{part}.txt").write_text("".join(lines))
        for i, c in truth[split].items():
            save(root / "images" / f"{breeds[c]}_{i}.jpg", i)
    save(root / "images" / "Abyssinian_1000.jpg", 0)  # not in any list
    return truth


def make_caltech101(data_dir: Path, _: pytest.MonkeyPatch) -> Truth:
    """The split is that of `n_train_per_class=3`, which chooses test images at random."""
    root = data_dir / "caltech101" / "101_ObjectCategories"
    names = ("BACKGROUND_Google", "Faces", "accordion")
    classes = {0: range(6), 1: range(6, 11), 2: range(11, 15)}
    for c, images in classes.items():
        for i in images:
            save(root / names[c] / f"image_{i:04}.jpg", i)
    (root / "BACKGROUND_Google" / "tmp").touch()  # as in the original
    labels = torch.tensor([c for c, images in classes.items() for _ in images])
    is_train = photos.draw_of_each_class(labels, 3).tolist()
    truth = {"train": {}, "test": {}}
    for i, c in enumerate(labels.tolist()):
        truth["train" if is_train[i] else "test"][i] = c
    return truth


def make_imagenet(data_dir: Path, _: pytest.MonkeyPatch, folder: str = "imagenet") -> Truth:
    photos.list_folder.cache_clear()
    truth, classes = listed(3, 3, 1), ("n01440764", "n01443537", "n02110185")
    for split, part in (("train", "train"), ("test", "val")):
        for i, c in truth[split].items():
            save(data_dir / folder / part / classes[c] / f"é{i}.JPEG", i)
    return truth


def make_pcam(data_dir: Path, _: pytest.MonkeyPatch) -> Truth:
    truth = listed(2, 5, 2) | {"val": {i: i % 2 for i in range(14, 20)}}
    (data_dir / "pcam").mkdir()
    for split, images in truth.items():
        pixels = STEP * np.array(list(images), np.uint8)[:, None, None, None]
        for content, name, values in (
            ("x", "x", np.broadcast_to(pixels, (len(pixels), 96, 96, 3))),
            ("y", "y", np.array(list(images.values()), np.uint8)[:, None, None, None]),
        ):
            with h5py.File(pcam_file(data_dir, split, content), "w") as h5:
                h5.create_dataset(name, data=values, chunks=(1, *values.shape[1:]))
    return truth


def pcam_file(data_dir: Path, split: str, content: str) -> Path:
    """The file with the images (x) or labels (y) of a split."""
    part = "valid" if split == "val" else split
    return data_dir / "pcam" / f"camelyonpatch_level_2_split_{part}_{content}.h5"


def make_coco(data_dir: Path, _: pytest.MonkeyPatch) -> Truth:
    """Images are listed in random order; there are no classes."""
    truth, root = listed(1, 12, 5), data_dir / "coco"
    (root / "annotations").mkdir(parents=True)
    for split, year in (("train", "train2017"), ("test", "val2017")):
        for i in truth[split]:
            save(root / year / f"{i:012d}.jpg", i)
        images = [{"id": i, "file_name": f"{i:012d}.jpg"} for i in reversed(truth[split])]
        captions = [
            {"id": 10 * i + k, "image_id": i, "caption": f"{'abcdé'[k % 5]} {i} {year}"}
            for i in truth[split]
            for k in reversed(range(5 if i % 3 else 6))
        ]
        path = root / "annotations" / f"captions_{year}.json"
        content = json.dumps({"images": images, "annotations": captions}, ensure_ascii=False)
        path.write_text(content, encoding="utf-8")
    return truth


KAGGLE_IDS = [31, 9, 200, 45]


def make_galaxy(data_dir: Path, _: pytest.MonkeyPatch) -> Truth:
    """The rows of the table are in random order; there are no classes."""
    n, folder = 20, data_dir / "galaxyzoo"
    for name, ids in ((galaxy.IMAGES, range(n)), (galaxy.KAGGLE_IMAGES, KAGGLE_IDS)):
        for i in ids:
            save_plain(folder / name / f"{i}.jpg", STEP * i % 256, size=(424, 424))
    answers = np.random.default_rng(0).random((n, len(galaxy.ANSWERS)))
    table = pd.DataFrame(answers, columns=galaxy.ANSWERS)
    table.insert(0, galaxy.ID, range(n))
    table.sample(frac=1, random_state=0).to_csv(folder / galaxy.SOLUTIONS, index=False)
    return {"train": dict.fromkeys(range(n), 0)}


def make_galaxy_offline(data_dir: Path, patch: pytest.MonkeyPatch) -> Truth:
    """One image in 20 is held out for testing."""
    make_galaxy(data_dir, patch)
    _, test = hold_out(torch.zeros(20, 1), galaxy.TEST_FRACTION)
    images = dict.fromkeys(range(20), 0)
    return {"test": {i: images.pop(i) for i in test.tolist()}, "train": images}


# --- arrays in archives, whose checksums replace torchvision's


def _md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def _plain(images: dict[int, int], *shape: int) -> np.ndarray:
    pixels = STEP * np.array(list(images), np.uint8)
    return np.broadcast_to(pixels.reshape(-1, *[1] * len(shape)), (len(images), *shape))


def make_mnist(data_dir: Path, patch: pytest.MonkeyPatch) -> Truth:
    truth, resources = listed(10, 4, 2), []
    for split, prefix in (("train", "train"), ("test", "t10k")):
        labels = np.array([*truth[split].values()], np.uint8)
        arrays = {"images-idx3": _plain(truth[split], 28, 28), "labels-idx1": labels}
        for name, array in arrays.items():
            head = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
            file = data_dir / "MNIST" / "raw" / f"{prefix}-{name}-ubyte.gz"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(gzip.compress(head + array.tobytes()))
            resources.append((file.name, _md5(file.read_bytes())))
    patch.setattr(datasets.MNIST, "resources", resources)
    return truth


def _save_archive(data_dir: Path, patch: pytest.MonkeyPatch, original: type, files: dict) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{original.base_folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    (data_dir / original.filename).write_bytes(buffer.getvalue())
    patch.setattr(original, "tgz_md5", _md5(buffer.getvalue()))
    for attribute in ("train_list", "test_list"):
        names = [name for name, _ in getattr(original, attribute)]
        patch.setattr(original, attribute, [[name, _md5(files[name])] for name in names])


def _make_cifar(original: type, label_key: str, names_key: str) -> Callable[..., Truth]:
    def make(data_dir: Path, patch: pytest.MonkeyPatch) -> Truth:
        truth = listed(10, 4, 2)
        train = list(truth["train"].items())
        n_files = len(original.train_list)
        files = {}
        for k, (name, _) in enumerate(original.train_list + original.test_list):
            images = dict(train[k::n_files]) if k < n_files else truth["test"]
            content = {"data": _plain(images, 3 * 32 * 32), label_key: [*images.values()]}
            files[name] = pickle.dumps(content)
        files[original.meta["filename"]] = pickle.dumps({names_key: list("abcdefghij")})
        _save_archive(data_dir, patch, original, files)
        meta = original.meta | {"md5": _md5(files[original.meta["filename"]])}
        patch.setattr(original, "meta", meta)
        return truth

    return make


def make_stl10(data_dir: Path, patch: pytest.MonkeyPatch) -> Truth:
    """Classes are numbered from 1."""
    truth = listed(10, 4, 2)
    unlabeled = dict.fromkeys(range(8), -1)
    files = {"unlabeled_X.bin": _plain(unlabeled, 3, 96, 96).tobytes()}
    for split, images in truth.items():
        files[f"{split}_X.bin"] = _plain(images, 3, 96, 96).tobytes()
        files[f"{split}_y.bin"] = (np.array([*images.values()]) + 1).astype(np.uint8).tobytes()
    files["class_names.txt"] = "\n".join("abcdefghij").encode()
    files["fold_indices.txt"] = b"0 1 2\n" * 10
    _save_archive(data_dir, patch, datasets.STL10, files)
    return truth


def make_stl10_unlabeled(data_dir: Path, patch: pytest.MonkeyPatch) -> Truth:
    return make_stl10(data_dir, patch) | {"train": dict.fromkeys(range(8), -1)}


MAKERS: dict[Callable[..., ImageDataModule], Callable[..., Truth]] = {
    photos.food101: make_food101,
    photos.cars196: make_cars196,
    photos.pets37: make_pets37,
    photos.caltech101: make_caltech101,
    photos.imagenet: make_imagenet,
    pcam.pcam: make_pcam,
    coco.coco: make_coco,
    galaxy.galaxy: make_galaxy,
    galaxy.galaxy_offline: make_galaxy_offline,
    torchvision_sets.mnist: make_mnist,
    torchvision_sets.cifar10: _make_cifar(datasets.CIFAR10, "labels", "label_names"),
    torchvision_sets.cifar100: _make_cifar(datasets.CIFAR100, "fine_labels", "fine_label_names"),
    torchvision_sets.stl10: make_stl10,
    torchvision_sets.stl10_unlabeled: make_stl10_unlabeled,
}
ON_DISK = [data_set for data_set in MAKERS if data_set.__module__ != torchvision_sets.__name__]


def open_small(
    data_set: Callable[..., ImageDataModule], data_dir: Path, truth: Truth, **kwargs: object
) -> ImageDataModule:
    """Open a small data set as if it were the complete one."""
    defaults = {"side": 16, "val_fraction": 1 / 3, "data_dir": str(data_dir), "batch_size": 4}
    if data_set is photos.caltech101:
        defaults["n_train_per_class"] = 3
    data = data_set(**(defaults | kwargs))
    sizes = {split: len(images) for split, images in truth.items()}
    data.source = replace(data.source, sizes=sizes)
    return data
