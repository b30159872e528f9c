"""PatchCamelyon, on small HDF5 files in the layout of the original."""

import pickle
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import torchvision.datasets

from utils.data import pcam
from utils.data.module import SPLITS, DataError
from utils.data.pcam import PCamDataModule

SIZES = {"train": 20, "val": 6, "test": 7}


def pixels(split):
    """Images uint8 [N, 96, 96, 3]; the first pixel of image i is i."""
    random = np.random.default_rng(len(split))
    images = random.integers(0, 256, (SIZES[split], 96, 96, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(SIZES[split])
    return images


def labels(split):
    return np.arange(SIZES[split], dtype=np.uint8) % 2


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    (folder / "pcam").mkdir()
    for split in SPLITS:
        with h5py.File(file(folder, split, "x"), "w") as images:
            images.create_dataset("x", data=pixels(split), chunks=(4, 96, 96, 3))
        with h5py.File(file(folder, split, "y"), "w") as targets:
            targets["y"] = labels(split).reshape(-1, 1, 1, 1)
    return folder


@pytest.fixture
def copy(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "copy"))


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(PCamDataModule, "SIZES", SIZES)


def file(folder, split, content):
    part = {"train": "train", "val": "valid", "test": "test"}[split]
    return folder / "pcam" / f"camelyonpatch_level_2_split_{part}_{content}.h5"


def module(folder, **kwargs):
    return PCamDataModule(
        **{"data_dir": str(folder), "base_resize": "resize", "batch_size": 5} | kwargs
    )


def test_images_and_labels_are_those_of_the_files(original):
    data = module(original)
    for split in SPLITS:
        (batch,) = data.loader(split, shuffle=False)
        assert torch.equal(batch.x * 255, torch.from_numpy(pixels(split)).permute(0, 3, 1, 2))
        assert batch.y.tolist() == labels(split).tolist() and batch.y.dtype == torch.int64
    assert batch.x.shape[1:] == data.shape == (3, 96, 96)


def test_every_training_image_comes_once_an_epoch_with_its_label(original):
    batches = list(module(original).loader("train", epoch=3))
    numbers = torch.cat([batch.x[:, 0, 0, 0] * 255 for batch in batches]).round().long()
    assert numbers.tolist() != list(range(20)) == numbers.sort().values.tolist()
    assert torch.equal(torch.cat([batch.y for batch in batches]), numbers % 2)


def test_workers_open_the_file_themselves_and_change_nothing(original):
    data, other = module(original), module(original, n_workers=2)
    list(data.loader("val")), list(other.loader("val"))
    for batch, same in zip(data.loader("train"), other.loader("train"), strict=True):
        assert torch.equal(batch.x, same.x) and torch.equal(batch.y, same.y)


def test_a_source_that_was_read_can_be_sent_to_another_process(original):
    source, _ = module(original).splits["train"]
    image = source.open(3)
    assert np.array_equal(np.array(pickle.loads(pickle.dumps(source)).open(3)), np.array(image))


def test_images_can_be_made_larger(original):
    data = module(original, side=112, base_resize="clip")
    assert next(iter(data.loader("test"))).x.shape == (7, 3, 112, 112)


@pytest.mark.parametrize("content", ["x", "y"])
def test_a_file_that_ends_too_early_is_named(copy, content):
    path = file(copy, "train", content)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=f"split_train_{content}.h5 is damaged.*Delete it"):
        module(copy).setup()


def test_a_file_without_its_dataset_is_named(copy):
    with h5py.File(file(copy, "test", "x"), "w") as images:
        images["pictures"] = pixels("test")
    with pytest.raises(DataError, match="split_test_x.h5 is damaged"):
        module(copy).setup()


def test_an_image_that_cannot_be_decompressed_is_named(copy):
    path = file(copy, "val", "x")
    with h5py.File(path, "w") as images:
        images.create_dataset("x", data=pixels("val"), chunks=(1, 96, 96, 3), compression="gzip")
        offset = images["x"].id.get_chunk_info(4).byte_offset
    damaged = bytearray(path.read_bytes())
    damaged[offset : offset + 50] = bytes(50)
    path.write_bytes(damaged)
    with pytest.raises(DataError, match="cannot read image 4 of .*split_valid_x.h5"):
        list(module(copy).loader("val"))


def test_images_and_labels_must_be_as_many(copy):
    with h5py.File(file(copy, "val", "y"), "w") as targets:
        targets["y"] = np.zeros((5, 1, 1, 1), np.uint8)
    with pytest.raises(DataError, match=r"split_valid_x.h5: expected images uint8 \[5, H, W, 3\]"):
        module(copy).setup()


def test_fewer_images_than_the_original_are_an_error(original, monkeypatch):
    monkeypatch.setattr(PCamDataModule, "SIZES", SIZES | {"train": 21})
    with pytest.raises(DataError, match="20 of 21 images of 'train'"):
        module(original).setup()
    assert module(original, is_complete=False).n_examples("train") == 20


def test_a_download_that_fails_says_what_to_put_where(tmp_path, monkeypatch, capsys):
    class Refused(Exception):
        """Google Drive's client has errors that are neither OSError nor RuntimeError."""

    def refuse(*args, **kwargs):
        raise Refused("too many users")

    monkeypatch.setattr(torchvision.datasets.pcam, "download_file_from_google_drive", refuse)
    with pytest.raises(DataError, match="too many users.*train_x.h5.gz.*gunzip"):
        module(tmp_path).setup()
    assert f"what is missing of {pcam.DOWNLOADS['train']}" in capsys.readouterr().out
