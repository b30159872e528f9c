"""The contract of all image sources, on small data sets in the original layouts."""

import re
import urllib.request
from urllib.error import URLError

import pytest
import requests
import torch
from helpers.batches import gather
from helpers.originals import MAKERS, ON_DISK, files, number_of
from helpers.read_only import refuse_to_write
from hydra.utils import get_method, instantiate
from PIL import Image
from torchvision import datasets

from utils.configs.composing import CONF_DIR, compose_config
from utils.data.images import ImageDataModule
from utils.data.module import SPLITS, DataError
from utils.data.sources import coco, galaxy, pcam, photos
from utils.data.sources.photos import caltech101, cars196, food101, imagenet, pets37
from utils.data.sources.torchvision_sets import mnist
from utils.runs.saved_runs import MOVED

IN_FILES = [data_set for data_set in ON_DISK if data_set is not pcam.pcam]
IN_ARCHIVES = [data_set for data_set in MAKERS if data_set not in ON_DISK]
REMEDIES = {  # in the error of a failed download
    cars196: "stanford_cars/.*cars_meta.mat",
    imagenet: r"imagenet/.*val/n01440764/\*.JPEG",
    galaxy.galaxy: "no token.*training_solutions_rev1.csv.*/100008.jpg",
    galaxy.galaxy_offline: "no token.*training_solutions_rev1.csv",
    coco.coco: "service not known.*zip",
}


def name_of(data_set):
    return data_set.__name__


@pytest.fixture(params=MAKERS, ids=name_of)
def data_set(request):
    return request.param


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    class Refused(Exception):
        """Google Drive's client raises errors that are neither OSError nor RuntimeError."""

    def fail_with(error):
        def fail(*args, **kwargs):
            raise error

        return fail

    reason = "Name or service not known"
    monkeypatch.setattr(urllib.request, "urlopen", fail_with(URLError(reason)))
    monkeypatch.setattr(requests, "get", fail_with(requests.ConnectionError(reason)))
    drive = "download_file_from_google_drive"
    monkeypatch.setattr(datasets.pcam, drive, fail_with(Refused(reason)))
    monkeypatch.setattr("utils.data.downloads.WAITS", ())


def test_each_image_appears_once_with_its_target_in_the_same_split_for_all_seeds(make, data_set):
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
    if "test" not in data.truth:
        assert found.pop("test") == found["val"]
    if "val" not in data.truth:
        assert len(found["val"]) == round(len(data.truth["train"]) / 3)
        found["train"] += found.pop("val")
    assert {s: sorted(numbers) for s, numbers in found.items()} == {
        split: sorted(images) for split, images in data.truth.items()
    }


def test_the_seed_decides_the_batches_and_neither_workers_nor_global_randomness(make, data_set):
    settings = {"auxiliary": "positive", "equivalence": ["rotation", "erasing"]}
    state = torch.get_rng_state()
    first, second = (gather(make(data_set, **settings).loader("train", epoch=k)) for k in (0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    n_workers = 2 if data_set in (food101, pcam.pcam) else 0
    again = gather(make(data_set, n_workers=n_workers, **settings).loader("train"))
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    other = gather(make(data_set, seed=7, **settings).loader("train"))
    assert not torch.equal(first[0], second[0]) and not torch.equal(first[0], other[0])


def test_a_complete_data_set_is_read_from_a_folder_that_cannot_be_written_to(
    make, data_set, tmp_path, monkeypatch
):
    make(data_set).setup()  # unpacks archives

    def state():
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    before = state()
    refuse_to_write(monkeypatch, tmp_path)
    assert len(next(iter(make(data_set).loader("test"))).x) and state() == before


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


@pytest.mark.parametrize("data_set", IN_FILES, ids=name_of)
def test_deleted_and_damaged_images_are_noticed(make, data_set):
    data = make(data_set)
    damaged, deleted = files(data, "test")[0], files(data, "train")[0]
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(DataError, match=damaged.name):
        list(data.loader("test"))
    deleted.unlink()
    photos.list_folder.cache_clear()
    split = "test" if data_set is caltech101 else "train"  # all images that are not for training
    n = len(data.truth[split])
    with pytest.raises(DataError, match=f"{n - 1} of {n} .*'{split}'"):
        make(data_set).setup()


@pytest.mark.parametrize("data_set", IN_FILES, ids=name_of)
def test_finding_the_images_opens_none_of_them(make, data_set, monkeypatch):
    data = make(data_set)
    monkeypatch.setattr(Image, "open", lambda path: pytest.fail(f"{path} was opened"))
    assert all(data.n_examples(split) for split in SPLITS)


# --- downloads


def test_the_error_of_a_failed_download_names_the_files_to_add(make, data_set, tmp_path, capsys):
    with pytest.raises(DataError) as error:
        make(data_set, exists=False).setup()
    assert str(tmp_path) in str(error.value) or data_set is cars196
    remedy = REMEDIES.get(data_set, "service not known.*gz")
    assert re.search(remedy, str(error.value), re.DOTALL)
    printed = capsys.readouterr().out
    assert data_set is imagenet or re.search("downloading up to .*[GM]B", printed)


@pytest.mark.parametrize(
    ("data_set", "file", "named"),
    [
        (mnist, "MNIST/raw/train-labels-idx1-ubyte", "MNIST"),
        (food101, "food-101/meta/test.json", "test.json"),
        (pets37, "oxford-iiit-pet/annotations/test.txt", "test.txt"),
        (cars196, "stanford_cars/devkit/cars_train_annos.mat", "Cars196.*cars_train_annos"),
        (cars196, "stanford_cars/cars_test_annos_withlabels.mat", "Cars196.*test_annos"),
        (pcam.pcam, "pcam/camelyonpatch_level_2_split_train_x.h5", "camelyonpatch"),
    ],
)
def test_incomplete_lists_and_tables_are_data_errors(make, data_set, file, named, tmp_path):
    make(data_set).setup()
    file = tmp_path / file
    content = file.read_bytes()
    for n_left in (len(content) // 2, 25, 3, 0):
        file.write_bytes(content[:n_left])
        with pytest.raises(DataError):
            make(data_set).setup()
    if data_set is not mnist:  # MNIST is unpacked again
        file.unlink()
    with pytest.raises(DataError, match=f"(?s){named}"):
        make(data_set).setup()


@pytest.mark.parametrize("data_set", IN_ARCHIVES, ids=name_of)
def test_archives_are_unpacked_once_and_again_when_files_are_lost(make, data_set, tmp_path, capsys):
    expected = make(data_set).splits["test"]
    assert "downloading" in capsys.readouterr().out  # here: unpacking the archive
    make(data_set).setup()
    assert not capsys.readouterr().out
    unpacked = [path for path in tmp_path.rglob("*") if path.is_file() and "gz" not in path.suffix]
    next(path for path in sorted(unpacked) if "test" in path.name or "t10k" in path.name).unlink()
    found = make(data_set).splits["test"]
    assert torch.equal(found.inputs, expected.inputs)
