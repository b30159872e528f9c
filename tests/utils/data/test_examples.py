"""Images on disk: the same batches for any number of workers, and clear errors."""

import gc
import multiprocessing
import os
import re
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.batches import gather
from helpers.pictures import save_noise, save_plain
from helpers.processes import own_workers
from PIL import Image
from torchvision.transforms import v2

from lossyless import parallel
from utils.data.examples import ImageFiles
from utils.data.images import ImageDataModule
from utils.data.module import SPLITS, DataError
from utils.data.sources import Source

SIDE = 8
N_TRAIN, N_TEST, N_CLASSES = 30, 9, 3


def open_numbered(data_dir: Path):
    """Image number i has class i % 3."""
    numbers = {"train": range(N_TRAIN), "test": range(N_TRAIN, N_TRAIN + N_TEST)}
    return {
        split: ImageFiles.of([(data_dir / f"{i}.png", i % N_CLASSES) for i in found]).on_disk()
        for split, found in numbers.items()
    }


def toy(folder, **kwargs):
    source = Source("Toy", open_numbered, N_CLASSES, sizes={"train": N_TRAIN, "test": N_TEST})
    defaults = {"side": SIDE, "val_fraction": 0.2, "batch_size": 7, "eval_batch_size": 4}
    return ImageDataModule(source, data_dir=str(folder), **(defaults | kwargs))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images whose pixels all equal the image's number."""
    folder = tmp_path_factory.mktemp("toy")
    for i in range(N_TRAIN + N_TEST):
        save_plain(folder / f"{i}.png", value=i, size=(5 + i, 9))
    return folder


def numbers(images):
    return (255 * images[:, 0, 0, 0]).round().long()


# --- batches


def test_random_crops_are_new_in_each_epoch_whichever_worker_reads_an_image(tmp_path, monkeypatch):
    """Nor do they seed torch's generator, from which other threads draw."""
    pixels = np.tile(np.arange(3 * SIDE, dtype=np.uint8)[None, :, None], (SIDE, 1, 3))
    for i in range(N_TRAIN + N_TEST):  # wide ramps, whose grey values show where a crop starts
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")

    def starts(split, epoch=0, **kwargs):
        data = toy(tmp_path, base_resize="clip_random", **kwargs)
        return numbers(gather(data.loader(split, epoch=epoch, shuffle=False)).x)

    states, make_params = [], v2.RandomCrop.make_params
    with monkeypatch.context() as patch:
        patch.setattr(
            v2.RandomCrop,
            "make_params",
            lambda *args: states.append(torch.get_rng_state()) or make_params(*args),
        )
        first = starts("train")
    assert len(states) > 8 and all(torch.equal(state, states[0]) for state in states)
    second, other = starts("train", epoch=1), starts("train", seed=7)
    assert torch.equal(first, starts("train", n_workers=2))
    for crops in (first, second, other):
        assert len(crops.unique()) > 8 and crops.max() <= 2 * SIDE
    assert (first == second).sum() + (first == other).sum() < 10  # by chance
    data = toy(tmp_path, base_resize="clip_random")
    assert [split for split in SPLITS if data.has_copies(split)] == ["train"]
    for split in ("val", "test"):
        assert (starts(split) == SIDE).all()  # the centre


def limit_files(monkeypatch):
    n_open = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "sysconf", lambda name: n_open + 40)


def limit_memory(monkeypatch):
    usage = SimpleNamespace(total=64 * 2**20, free=6 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)


def unmount_memory(monkeypatch):
    monkeypatch.setattr(parallel, "SHARED_MEMORY", "/dev/missing")


LIMITS = {
    limit_files: "[0-4] of 5 .*ulimit -n",
    limit_memory: "2 of 5 .*/dev/shm.* 64 MiB",
    unmount_memory: "0 of 5 .* 0 MiB",
}


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limits")
@pytest.mark.parametrize(("limit", "expected"), LIMITS.items())
def test_limits_of_the_system_reduce_the_number_of_workers(limit, expected, monkeypatch, capsys):
    parallel._say.cache_clear()
    limit(monkeypatch)
    n_workers = [parallel.affordable_workers(5, batch_bytes=2**20) for _ in range(2)]
    assert max(n_workers) < 5
    assert re.fullmatch(rf"(using {expected}.*\n)+", capsys.readouterr().err)


def test_abandoned_iterations_leave_no_workers(folder):
    batches = iter(toy(folder, n_workers=2).loader("train"))
    next(batches)
    assert len(own_workers()) == 2
    del batches
    gc.collect()
    assert not own_workers()


# --- files


def single(path, kind="colour_image", **kwargs):
    """A data set that consists of copies of one file."""
    files = ImageFiles([path] * 6, torch.tensor([0, 0, 0, 1, 1, 1]))
    source = Source("Single", lambda _: dict.fromkeys(SPLITS, files), n_outputs=2, kind=kind)
    return gather(ImageDataModule(source, side=SIDE, **kwargs).loader("test")).x


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", "jpg"), ("CMYK", "jpg"), ("RGBA", "png"), ("LA", "png"), ("P", "gif"), ("1", "png")],
)
def test_images_of_any_mode_and_size_become_colour_images(tmp_path, mode, suffix):
    for size in ((1, 7), (200, 3)):
        path = tmp_path / f"image.{suffix}"
        save_noise(path, seed=1, mode=mode, size=size)
        with Image.open(path) as image:
            assert image.mode == mode
        images = single(path)
        assert images.shape == (6, 3, SIDE, SIDE)
        grey = images[:, :1].expand_as(images)
        assert torch.equal(images, grey) == (mode in ("L", "LA", "1"))
    misnamed = tmp_path / "image.bmp"
    misnamed.write_bytes(path.read_bytes())
    assert torch.equal(single(misnamed), images)


def test_pixels_are_those_of_the_file(tmp_path):
    path = tmp_path / "image.png"
    save_noise(path, seed=1, size=(SIDE, SIDE))
    image = Image.open(path)
    pixels = torch.tensor(np.asarray(image)).permute(2, 0, 1)
    images = single(path, base_resize="none")
    assert torch.equal(images, pixels.expand(6, -1, -1, -1).float() / 255)
    grey = torch.tensor(np.asarray(image.convert("L")))
    images = single(path, kind="bw_image")
    assert torch.equal((255 * images[0, 0]).round().to(torch.uint8), grey)


@pytest.mark.parametrize("n_workers", [0, 1])
def test_a_damaged_image_is_named(tmp_path, n_workers):
    path = tmp_path / "cat_17.jpg"
    save_noise(path, seed=1, size=(64, 64))
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"<html>404", None)[: 1 if n_workers else 3]:
        path.write_bytes(content) if content else path.unlink()
        with pytest.raises(DataError, match="cat_17.jpg") as error:
            single(path, n_workers=n_workers)
        assert "\n" not in str(error.value)
        assert not own_workers()  # although the error still refers to their iterator


def test_a_killed_worker_is_an_error_of_one_line(folder, monkeypatch):
    data = toy(folder, n_workers=1)
    monkeypatch.setattr(ImageFiles, "open", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(DataError, match="n_workers") as error:
        list(data.loader("train"))
    assert "\n" not in str(error.value)


def test_images_too_large_or_of_another_shape_are_named(tmp_path, monkeypatch):
    path = tmp_path / "huge.png"
    save_noise(path, seed=1, size=(9, 7))
    with pytest.raises(DataError, match=r"huge.png.*\[3, 7, 9\].*\[3, 8, 8\].*base_resize"):
        single(path, base_resize="none")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DataError, match="huge.png"):
        single(path)


@pytest.mark.skipif(sys.platform != "linux", reason="workers are spawned elsewhere")
def test_workers_are_forked_whatever_the_start_method_of_the_process(folder):
    """Loaders do not support joblib's start method, which jobs of a parallel sweep use."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    try:
        batches = iter(toy(folder, n_workers=1).loader("test"))
        next(batches)
        assert type(own_workers()[0]).__name__ == "ForkProcess"
    finally:
        multiprocessing.set_start_method(before, force=True)
