"""Properties of individual sources, on small data sets in the original layouts."""

import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from helpers.kaggle_client import Client
from helpers.originals import (
    KAGGLE_IDS,
    files,
    make_cars196,
    make_imagenet,
    open_small,
    pcam_file,
)
from helpers.pictures import save_noise
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.transforms.v2 import functional as F

from utils.data import kaggle
from utils.data.examples import InMemory
from utils.data.images import ImageDataModule
from utils.data.module import SPLITS, DataError
from utils.data.sources import Source, galaxy, pcam, photos
from utils.data.sources.digits import digits
from utils.data.sources.galaxy import ANSWERS, COMPETITION, ID, kaggle_test_batches
from utils.data.sources.photos import caltech101, cars196, food101, imagenet

CPU = torch.device("cpu")


def contents(folder: Path) -> dict[str, bytes]:
    """The content of each file in a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --- in memory


def test_splits_of_the_digits_are_stratified_and_cover_them_once():
    data = digits(side=8, margin=0, seed=1)
    splits = [data.splits[split] for split in SPLITS]
    assert [len(part.targets) for part in splits] == [1197, 200, 400]
    images = torch.cat([part.inputs for part in splits])[:, 0].flatten(1)
    original = torch.from_numpy(load_digits().images).flatten(1) * 255 / 16
    original = original.round().to(torch.uint8)
    assert torch.equal(images.unique(dim=0), original.unique(dim=0))
    labels = torch.cat([part.targets for part in splits])
    assert torch.equal(labels.bincount(), torch.from_numpy(load_digits().target).bincount())
    for part in splits:
        frequencies = part.targets.bincount(minlength=10) / len(part.targets)
        assert (frequencies - 0.1).abs().max() < 0.01
    with pytest.raises(ValueError, match="margin of 4"):
        digits(side=8, margin=4)


@pytest.mark.parametrize("side", [16, 64])
def test_images_are_resized_after_their_augmentation_as_by_pillow(side):
    original = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    images = InMemory(torch.tensor(original).expand(4, 1, 28, 28), torch.zeros(4).long())
    source = Source("Toy", lambda _: dict.fromkeys(SPLITS, images), 1, augment_side=28)
    data = ImageDataModule(replace(source, kind="bw_image"), side=side)
    x = next(iter(data.loader("test"))).x
    expected = Image.fromarray(original).resize((side, side), Image.Resampling.BILINEAR)
    assert (255 * x[0, 0] - torch.tensor(np.asarray(expected))).abs().max() < 2.01


# --- photographs


def test_food_101_comes_in_the_order_of_its_lists_with_classes_in_alphabetical_order(make):
    data = make(food101)
    assert [path.parent.name for path in files(data, "test")] == ["waffles", "baklava", "apple_pie"]
    assert data.splits["test"].targets.tolist() == [2, 1, 0]


def test_cars_are_downloaded_from_kaggle_if_its_client_has_a_token(tmp_path, monkeypatch):
    truth = make_cars196(tmp_path / "original", monkeypatch)
    client = Client(contents(tmp_path / "original"))
    monkeypatch.setattr(kaggle, "connect", lambda: client)
    for _ in range(2):
        assert open_small(cars196, tmp_path / "data", truth).n_examples("train") == 6
    assert len(client.calls) == 1
    assert [path.name for path in (tmp_path / "data").glob("[!.]*")] == ["stanford_cars"]


def test_caltech_101_has_equally_many_training_images_per_class(make):
    for n in (2, 3):
        data = make(caltech101, n_train_per_class=n, val_fraction=0.5, is_complete=False)
        labels = torch.cat([data.splits[split].targets for split in ("train", "val")])
        assert labels.bincount().tolist() == [n, n, n]
    for n in (0, 31):
        with pytest.raises(ValueError, match=f"got {n}"):
            caltech101(side=16, n_train_per_class=n)
    # the same random numbers on every machine
    chosen = photos.draw_of_each_class(torch.tensor([0] * 8 + [1] * 8), 3).nonzero()[:, 0]
    assert chosen.tolist() == [1, 2, 6, 9, 11, 14]


def test_small_images_of_imagenet_are_preferred_and_listed_once(make, monkeypatch, tmp_path):
    make_imagenet(tmp_path, monkeypatch, "imagenet256")
    for _ in range(2):
        assert {p.parents[2].name for p in files(make(imagenet), "train")} == {"imagenet256"}
    assert photos.list_folder.cache_info().misses == 2  # of train/ and val/


def test_different_classes_in_the_folders_of_imagenet_are_noticed(make, tmp_path):
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


def test_other_contents_of_files_of_pcam_are_named(make, tmp_path):
    make(pcam.pcam)
    path = pcam_file(tmp_path, "train", "y")
    with h5py.File(path, "w") as file:
        file["pictures"] = np.zeros(3)
    with pytest.raises(DataError, match=path.name):
        make(pcam.pcam).setup()


# --- Galaxy Zoo


@pytest.fixture
def solutions(tmp_path):
    """Path of the table of answers."""
    return tmp_path / "galaxyzoo" / galaxy.SOLUTIONS


def test_targets_of_galaxies_are_their_rows_of_the_table(make, solutions):
    data = make(galaxy.galaxy)
    assert len(ANSWERS) == 37 and (ANSWERS[0], ANSWERS[-1]) == ("Class1.1", "Class11.6")
    for split in SPLITS:
        ids = [int(path.stem) for path in files(data, split)]
        expected = pd.read_csv(solutions).set_index(ID).loc[ids].to_numpy()
        np.testing.assert_allclose(data.splits[split].targets, expected, atol=1e-6)


def test_the_centre_of_galaxies_is_cropped_then_resized(make, side=33, crop=207):
    path = files(make(galaxy.galaxy), "test")[0]
    save_noise(path, seed=0, size=(424, 424))
    image = F.pil_to_tensor(F.center_crop(Image.open(path), [crop, crop]))
    expected = F.resize(image, [side, side], antialias=True)
    data = make(galaxy.galaxy, side=side, crop=crop)
    found = next(iter(data.loader("test"))).x[0] * 255
    assert (found - expected).abs().max() <= 2.01  # PIL images are rounded differently
    with pytest.raises(ValueError, match="424 .*425"):
        galaxy.galaxy(side=16, crop=425)


def test_an_incomplete_set_of_galaxies_keeps_the_splits_of_the_complete_one(make):
    data = make(galaxy.galaxy_offline)
    test, lost = files(data, "test"), files(data, "train")[:5]
    for path in lost:
        path.unlink()
    assert files(make(galaxy.galaxy_offline, is_complete=False), "test") == test


def test_damaged_solutions_are_named(make, solutions):
    make(galaxy.galaxy)
    whole, table = solutions.read_text(), pd.read_csv(solutions)
    for content in (
        "",
        whole[: len(whole) - 100],
        table.drop(columns="Class7.2").to_csv(index=False),
        table.assign(**{"Class7.2": 1.5}).to_csv(index=False),
    ):
        solutions.write_text(content)
        with pytest.raises(DataError, match="training_solutions_rev1.csv .*damaged"):
            make(galaxy.galaxy).setup()
    solutions.write_text("\n".join(whole.splitlines()[:16]))
    with pytest.raises(DataError, match="15 of 20 .*'train'"):
        make(galaxy.galaxy).setup()


def test_test_images_of_kaggle_have_their_ids(make, monkeypatch, tmp_path):
    monkeypatch.setattr(galaxy, "N_KAGGLE_TEST", len(KAGGLE_IDS))
    data = make(galaxy.galaxy, equivalence=["color"], eval_batch_size=3)
    batches = list(kaggle_test_batches(data, 424, CPU))
    assert [len(x) for x, _ in batches] == [3, 1]
    x, ids = (torch.cat(part) for part in zip(*batches, strict=True))
    assert ids.tolist() == sorted(KAGGLE_IDS) and x.shape[1:] == data.shape
    assert ((x[:, 0, 0, 0] * 255 - 4 * ids % 256).abs() < 2).all()
    next((tmp_path / "galaxyzoo" / galaxy.KAGGLE_IMAGES).iterdir()).unlink()
    with pytest.raises(DataError, match="3 of 4 .*images_test_rev1"):
        next(kaggle_test_batches(data, 424, CPU))


def test_only_missing_files_of_galaxies_are_downloaded(make, tmp_path, monkeypatch):
    make(galaxy.galaxy)
    client = Client(contents(tmp_path / "galaxyzoo"))
    shutil.rmtree(tmp_path / "galaxyzoo" / galaxy.IMAGES)
    monkeypatch.setattr(kaggle, "connect", lambda: client)
    for _ in range(2):
        make(galaxy.galaxy).setup()
    assert client.calls == [(COMPETITION, "images_training_rev1.zip", False)]
    assert not list((tmp_path / "galaxyzoo").glob("*.zip"))
