"""Galaxy Zoo, on a small folder in the layout of Kaggle's files."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import galaxies
from helpers.galaxies import IDS, OFFLINE_SIZES, SIZES
from torchvision.transforms.v2 import functional as F

from utils.data import kaggle
from utils.data.galaxy import (
    ANSWERS,
    COMPETITION,
    GalaxyDataModule,
    GalaxyOfflineDataModule,
    read_solutions,
)
from utils.data.module import SPLITS, DataError

KAGGLE_IDS = [100018, 99, 2000033, 100123, 777777, 500000, 123456]


@pytest.fixture(scope="module")
def solutions():
    return galaxies.solutions()


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    galaxies.save(folder, KAGGLE_IDS)
    return folder


@pytest.fixture
def copy(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "copy"))


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(GalaxyDataModule, "SIZES", SIZES)
    monkeypatch.setattr(GalaxyOfflineDataModule, "SIZES", OFFLINE_SIZES)
    monkeypatch.setattr(GalaxyDataModule, "N_KAGGLE_TEST", len(KAGGLE_IDS))


def module(folder, data_set=GalaxyDataModule, **kwargs):
    defaults = {"side": 32, "batch_size": 8, "eval_batch_size": 5, "equivalence": []}
    return data_set(**{"data_dir": str(folder)} | defaults | kwargs)


def test_the_columns_are_those_of_the_competition():
    assert len(ANSWERS) == 37
    assert ANSWERS[:4] == ("Class1.1", "Class1.2", "Class1.3", "Class2.1")
    assert ANSWERS[-1] == "Class11.6"


def test_targets_belong_to_their_images(original, solutions):
    data = module(original, is_augment_val=False)
    shares = solutions.set_index("GalaxyID")
    for split in SPLITS:
        source, members = data.splits[split]
        batches = list(data.loader(split, shuffle=False))
        x, y = (torch.cat([batch[k] for batch in batches]) for k in range(2))
        ids = [int(Path(source.name(i)).stem) for i in members.tolist()]
        np.testing.assert_allclose(y, shares.loc[ids].to_numpy(), atol=1e-6)
        greens = torch.tensor([galaxy % 251 for galaxy in ids])
        assert ((x[:, 1, 0, 0] * 255 - greens).abs() < 4).all()
        assert y.dtype == torch.float32 and y.shape[1] == data.n_outputs == 37


def files(data, split):
    source, members = data.splits[split]
    return [Path(source.name(i)).name for i in members.tolist()]


@pytest.mark.parametrize("data_set", [GalaxyDataModule, GalaxyOfflineDataModule])
def test_splits_cover_the_labelled_images_once_whatever_the_seed(original, data_set):
    found, other = (
        {split: files(module(original, data_set, seed=seed), split) for split in SPLITS}
        for seed in (1, 2)
    )
    assert found == other
    is_offline = data_set is GalaxyOfflineDataModule
    sizes = {"train": 36 if is_offline else 38, "val": 2, "test": 2}
    assert {split: len(names) for split, names in found.items()} == sizes
    if not is_offline:  # Kaggle has the test images
        assert found.pop("test") == found["val"]
    names = sorted(name for split in found.values() for name in split)
    assert names == sorted(f"{i}.jpg" for i in IDS)


def test_the_order_of_the_lines_does_not_matter(copy, original, solutions):
    path = copy / "galaxyzoo" / "training_solutions_rev1.csv"
    solutions.sort_values("Class3.2").to_csv(path, index=False)
    for split in SPLITS:
        assert files(module(original), split) == files(module(copy), split)


@pytest.mark.parametrize(("side", "crop"), [(256, 256), (64, 256), (128, 424), (33, 207)])
def test_the_centre_is_cropped_then_resized(original, side, crop):
    data = module(original, side=side, crop=crop, eval_batch_size=1)
    source, members = data.splits["test"]
    image = F.pil_to_tensor(source.open(members[0].item()).convert("RGB"))
    expected = F.center_crop(image, [crop, crop])
    if side != crop:
        expected = F.resize(expected, [side, side], antialias=True)
    found = next(iter(data.loader("test"))).x[0] * 255
    assert found.shape == (3, side, side)
    assert (found - expected).abs().max() <= 1.01  # resizing rounds differently on PIL images


def test_the_object_stays_and_its_surroundings_go(original):
    x = next(iter(module(original, side=256, crop=256).loader("val"))).x
    assert (x[:, 0, 126:130, 126:130] > 0.6).all()
    assert (x[:, 0, :120] < 0.1).all()


def test_a_crop_that_is_no_part_of_the_image_is_refused(original):
    with pytest.raises(ValueError, match="crop must lie in 1 to 424"):
        module(original, crop=425)


def test_workers_change_nothing(original):
    settings = {"equivalence": ["rotation", "D4_group"], "auxiliary": "positive"}
    alone, together = (module(original, n_workers=n, **settings) for n in (0, 2))
    for batch, other in zip(alone.loader("train"), together.loader("train"), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(batch, other, strict=True))


def test_unpacking_that_was_interrupted_is_noticed(copy):
    for path in sorted((copy / "galaxyzoo" / "images_training_rev1").iterdir())[:30]:
        path.unlink()
    with pytest.raises(DataError, match="of 40 images of 'train'.*galaxyzoo/images_training_rev1"):
        module(copy).setup()
    data = module(copy, is_complete=False)
    for path in sorted((copy / "galaxyzoo" / "images_test_rev1").iterdir())[:2]:
        path.unlink()
    with pytest.raises(DataError, match="5 of 7 images in .*images_test_rev1"):
        data.kaggle_test_source()


def test_an_incomplete_set_keeps_the_splits_of_the_complete_one(copy, original):
    data_set = GalaxyOfflineDataModule
    test = set(files(module(original, data_set), "test"))
    lost = sorted(path.name for path in (copy / "galaxyzoo" / "images_training_rev1").iterdir())[:9]
    for name in lost:
        (copy / "galaxyzoo" / "images_training_rev1" / name).unlink()
    assert set(files(module(copy, data_set, is_complete=False), "test")) == test - set(lost)


def test_a_damaged_image_is_named(copy):
    data = module(copy)
    source, members = data.splits["val"]
    path = Path(source.name(members[1].item()))
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(DataError, match=path.name):
        list(data.loader("val"))


def test_damaged_solutions_are_named(copy, solutions):
    path = copy / "galaxyzoo" / "training_solutions_rev1.csv"
    whole = path.read_text()
    path.write_text(whole[: len(whole) - 100])
    with pytest.raises(DataError, match="training_solutions_rev1.csv is damaged: galaxy"):
        read_solutions(path)
    path.write_text("\n".join(whole.splitlines()[:30]))
    with pytest.raises(DataError, match="of 40 images of 'train'"):
        module(copy).setup()
    solutions.drop(columns="Class7.2").to_csv(path, index=False)
    with pytest.raises(DataError, match="Class7.2"):
        read_solutions(path)
    solutions.assign(**{"Class7.2": 1.5}).to_csv(path, index=False)
    with pytest.raises(DataError, match=r"has not 37 values in \[0, 1\]"):
        read_solutions(path)
    path.write_text("")
    with pytest.raises(DataError, match="is damaged"):
        read_solutions(path)


def test_images_that_kaggle_scores_come_with_their_ids(original):
    batches = list(module(original).kaggle_test_batches(torch.device("cpu")))
    assert [len(x) for x, _ in batches] == [5, 2]
    x, ids = (torch.cat(part) for part in zip(*batches, strict=True))
    assert ids.tolist() == sorted(KAGGLE_IDS)
    assert x.shape == (7, 3, 32, 32)
    assert ((x[:, 1, 0, 0] * 255 - ids % 251).abs() < 4).all()


def test_what_is_missing_is_downloaded_and_only_that(original, tmp_path, monkeypatch, capsys):
    asked = []

    class Client:
        def competition_download_file(self, competition, file_name, path, force, quiet):
            asked.append((competition, file_name))
            content = {"images_training_rev1.zip": "images_training_rev1"}.get(
                file_name, "images_test_rev1"
            )
            files = (original / "galaxyzoo" / content).iterdir()
            if file_name == "training_solutions_rev1.zip":
                files = [original / "galaxyzoo" / "training_solutions_rev1.csv"]
            with zipfile.ZipFile(Path(path) / file_name, "w") as archive:
                for file in files:
                    archive.write(file, file.relative_to(original / "galaxyzoo"))

    monkeypatch.setattr(kaggle, "connect", Client)
    data = module(tmp_path)
    assert data.n_examples("train") == 38
    assert asked == [
        (COMPETITION, "training_solutions_rev1.zip"),
        (COMPETITION, "images_training_rev1.zip"),
    ]
    assert "0.8 GB" in capsys.readouterr().out
    module(tmp_path).setup()
    assert len(asked) == 2
    assert len(data.kaggle_test_source().paths) == 7
    assert asked[2:] == [(COMPETITION, "images_test_rev1.zip")]
    assert not list((tmp_path / "galaxyzoo").glob("*.zip"))


def test_without_an_account_the_error_says_what_to_put_where(tmp_path, monkeypatch):
    def refuse():
        raise DataError("no token")

    monkeypatch.setattr(kaggle, "connect", refuse)
    expected = "no token.*galaxyzoo/training_solutions_rev1.csv.*images_training_rev1/100008.jpg"
    with pytest.raises(DataError, match=expected):
        module(tmp_path).setup()
