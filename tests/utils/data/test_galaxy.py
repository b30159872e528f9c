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
from utils.data.module import SPLITS, DataError
from utils.data.sources import galaxy
from utils.data.sources.galaxy import ANSWERS, COMPETITION, kaggle_test_batches, read_solutions

KAGGLE_IDS = [100018, 99, 2000033, 100123, 777777, 500000, 123456]
CPU = torch.device("cpu")


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
    monkeypatch.setattr(galaxy, "SIZES", SIZES)
    monkeypatch.setattr(galaxy, "OFFLINE_SIZES", OFFLINE_SIZES)
    monkeypatch.setattr(galaxy, "N_KAGGLE_TEST", len(KAGGLE_IDS))


def load(folder, data_set=galaxy.galaxy, **kwargs):
    defaults = {"side": 32, "batch_size": 8, "eval_batch_size": 5}
    return data_set(**{"data_dir": str(folder)} | defaults | kwargs)


def files(data, split):
    examples = data.splits[split]
    return [Path(examples.images.name(i)).name for i in examples.members.tolist()]


def test_without_an_account_the_error_says_what_to_put_where(tmp_path, monkeypatch):
    def refuse():
        raise DataError("no token")

    monkeypatch.setattr(kaggle, "connect", refuse)
    with pytest.raises(DataError, match="no token.*training_solutions_rev1.csv.*/100008.jpg"):
        load(tmp_path).setup()


@pytest.mark.parametrize("data_set", [galaxy.galaxy, galaxy.galaxy_offline])
def test_splits_cover_the_labelled_images_once_with_their_targets(original, data_set):
    data, other = (load(original, data_set, seed=seed, n_workers=2 * seed) for seed in (1, 0))
    answers = galaxies.solutions().set_index("GalaxyID")
    assert len(ANSWERS) == 37 and (ANSWERS[0], ANSWERS[-1]) == ("Class1.1", "Class11.6")
    found = {}
    for split in SPLITS:
        found[split] = files(data, split)
        assert found[split] == files(other, split)
        batches = list(data.loader(split, shuffle=False))
        x, y = (torch.cat([batch[k] for batch in batches]) for k in range(2))
        ids = [int(Path(name).stem) for name in found[split]]
        np.testing.assert_allclose(y, answers.loc[ids].to_numpy(), atol=1e-6)
        greens = torch.tensor([i % 251 for i in ids])
        assert ((x[:, 1, 0, 0] * 255 - greens).abs() < 4).all()
    if data_set is galaxy.galaxy:  # Kaggle has the test images
        assert found.pop("test") == found["val"]
    assert sorted(sum(found.values(), [])) == sorted(f"{i}.jpg" for i in IDS)
    assert len(found["val"]) == 2


@pytest.mark.parametrize(("side", "crop"), [(256, 256), (33, 207)])
def test_the_centre_is_cropped_then_resized(original, side, crop):
    data = load(original, side=side, crop=crop, eval_batch_size=1)
    whole = load(original, side=424, eval_batch_size=1, base_resize="none")
    image = (next(iter(whole.loader("test"))).x[0] * 255).to(torch.uint8)
    expected = F.center_crop(image, [crop, crop])
    if side != crop:
        expected = F.resize(expected, [side, side], antialias=True)
    found = next(iter(data.loader("test"))).x[0] * 255
    assert found.shape == (3, side, side)
    assert (found - expected).abs().max() <= 1.01  # PIL images are rounded differently
    with pytest.raises(ValueError, match="424 pixels, got 425"):
        load(original, crop=425)


def test_missing_and_damaged_images_are_noticed(copy, original):
    folder = copy / "galaxyzoo" / "images_training_rev1"
    damaged = folder / files(load(copy), "val")[1]
    content = damaged.read_bytes()
    damaged.write_bytes(content[:700])
    with pytest.raises(DataError, match=damaged.name):
        list(load(copy).loader("val"))
    damaged.write_bytes(content)
    test = set(files(load(original, galaxy.galaxy_offline), "test"))
    lost = sorted(path.name for path in folder.iterdir())[:9]
    for name in lost:
        (folder / name).unlink()
    with pytest.raises(DataError, match="31 of 40 images of 'train'.*images_training_rev1"):
        load(copy).setup()
    # an incomplete set keeps the splits of the complete one
    part = load(copy, galaxy.galaxy_offline, is_complete=False)
    assert set(files(part, "test")) == test - set(lost)
    next((copy / "galaxyzoo" / "images_test_rev1").iterdir()).unlink()
    with pytest.raises(DataError, match="6 of 7 images in .*images_test_rev1"):
        next(kaggle_test_batches(load(copy), 424, CPU))


def test_damaged_solutions_are_named(copy, original):
    path = copy / "galaxyzoo" / "training_solutions_rev1.csv"
    whole, solutions = path.read_text(), galaxies.solutions()
    solutions.sort_values("Class3.2").to_csv(path, index=False)  # the order of lines is free
    assert files(load(original), "val") == files(load(copy), "val")
    path.write_text("\n".join(whole.splitlines()[:30]))
    with pytest.raises(DataError, match="of 40 images of 'train'"):
        load(copy).setup()
    for content in (
        "",
        whole[: len(whole) - 100],
        solutions.drop(columns="Class7.2").to_csv(index=False),
        solutions.assign(**{"Class7.2": 1.5}).to_csv(index=False),
    ):
        path.write_text(content)
        with pytest.raises(DataError, match="training_solutions_rev1.csv is damaged"):
            read_solutions(path)


def test_images_that_kaggle_scores_come_with_their_ids(original):
    batches = list(kaggle_test_batches(load(original, equivalence=["color"]), 424, CPU))
    assert [len(x) for x, _ in batches] == [5, 2]
    x, ids = (torch.cat(part) for part in zip(*batches, strict=True))
    assert ids.tolist() == sorted(KAGGLE_IDS)
    assert x.shape == (7, 3, 32, 32)
    assert ((x[:, 1, 0, 0] * 255 - ids % 251).abs() < 4).all()


def test_only_missing_files_are_downloaded(original, tmp_path, monkeypatch, capsys):
    asked = []

    class Client:
        def competition_download_file(self, competition, file_name, path, force, quiet):
            asked.append((competition, file_name))
            content = original / "galaxyzoo" / Path(file_name).stem
            files = content.iterdir() if content.is_dir() else [content.with_suffix(".csv")]
            with zipfile.ZipFile(Path(path) / file_name, "w") as archive:
                for file in files:
                    archive.write(file, file.relative_to(original / "galaxyzoo"))

    monkeypatch.setattr(kaggle, "connect", Client)
    for _ in range(2):
        data = load(tmp_path)
        assert data.n_examples("train") == 38
    assert asked == [
        (COMPETITION, "training_solutions_rev1.zip"),
        (COMPETITION, "images_training_rev1.zip"),
    ]
    assert "0.8 GB" in capsys.readouterr().out
    assert len(list(kaggle_test_batches(data, 424, CPU))) == 2
    assert asked[2:] == [(COMPETITION, "images_test_rev1.zip")]
    assert not list((tmp_path / "galaxyzoo").glob("*.zip"))
