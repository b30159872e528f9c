"""Images that workers read from disk: the same batches however many there are, clear errors."""

import gc
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from helpers.pictures import save_noise, save_plain
from helpers.processes import own_workers
from PIL import Image

from utils.data.module import SPLITS, DataError
from utils.data.streamed import ImageFiles, StreamedImages

SIDE = 8
N_TRAIN, N_TEST, N_CLASSES = 30, 9, 3


class ToyImages(StreamedImages):
    """Image number i has the grey value i in all pixels, and class i % 3."""

    kind = "colour_image"
    n_outputs = N_CLASSES
    SIZES = {"train": N_TRAIN, "test": N_TEST}

    def open_splits(self):
        root = Path(self.data_dir)
        numbers = {"train": range(N_TRAIN), "test": range(N_TRAIN, N_TRAIN + N_TEST)}
        return {
            split: ImageFiles.of([(root / f"{i}.png", i % N_CLASSES) for i in found]).on_disk()
            for split, found in numbers.items()
        }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    for i in range(N_TRAIN + N_TEST):
        save_plain(folder / f"{i}.png", value=i, size=(5 + i, 9))
    return folder


def toy(folder, **kwargs):
    defaults = {"side": SIDE, "val_fraction": 0.2, "batch_size": 7, "eval_batch_size": 4}
    return ToyImages(data_dir=str(folder), **(defaults | kwargs))


def numbers(images):
    """Which images these are."""
    return (255 * images[:, 0, 0, 0]).round().long()


def gather(loader, i=0):
    return torch.cat([batch[i] for batch in loader])


# --- batches


def test_batches_are_float_images_of_one_shape_with_their_classes(folder):
    for split in SPLITS:
        for batch in toy(folder).loader(split):
            assert batch.x.shape[1:] == (3, SIDE, SIDE) and batch.x.dtype == torch.float32
            assert batch.y.dtype == torch.int64
            assert torch.equal(batch.y, numbers(batch.x) % N_CLASSES)
            assert torch.equal(batch.x, batch.x[:, :1, :1, :1].expand_as(batch.x))


@pytest.mark.parametrize("auxiliary", ["positive", "representative"])
def test_workers_change_nothing(folder, auxiliary):
    settings = {"auxiliary": auxiliary, "equivalence": ["hflip", "color", "resize_crop", "label"]}
    for split in ("train", "test"):
        alone = list(toy(folder, **settings).loader(split, epoch=1))
        together = list(toy(folder, **settings, n_workers=2).loader(split, epoch=1))
        for batch, other in zip(alone, together, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(batch, other, strict=True))


@pytest.fixture(scope="module")
def ramps(tmp_path_factory):
    """Wide images whose grey values say where along them one is."""
    folder = tmp_path_factory.mktemp("ramps")
    pixels = np.tile(np.arange(3 * SIDE, dtype=np.uint8)[None, :, None], (SIDE, 1, 3))
    for i in range(N_TRAIN + N_TEST):
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def test_random_crops_are_new_in_each_epoch_whichever_worker_reads_an_image(ramps):
    def starts(split, epoch=0, **kwargs):
        data = toy(ramps, base_resize="clip_random", **kwargs)
        return numbers(gather(data.loader(split, epoch=epoch, shuffle=False)))

    first, second, other = starts("train"), starts("train", epoch=1), starts("train", seed=7)
    assert torch.equal(first, starts("train", n_workers=2))
    for crops in (first, second, other):
        assert len(crops.unique()) > 8 and crops.max() <= 2 * SIDE
    assert (first == second).sum() + (first == other).sum() < 10  # by chance
    data = toy(ramps, base_resize="clip_random")
    assert [split for split in SPLITS if data.has_copies(split)] == ["train"]
    for split in ("val", "test"):
        assert (starts(split) == SIDE).all()  # the centre


def test_epochs_shuffle_anew_and_the_seed_decides(folder):
    first, again, second, other = (
        gather(toy(folder, seed=seed).loader("train", epoch=epoch))
        for seed, epoch in ((1, 0), (1, 0), (1, 1), (2, 0))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, second) and not torch.equal(first, other)


@pytest.mark.parametrize("n_workers", [0, 1])
def test_global_randomness_is_neither_used_nor_moved(folder, n_workers):
    state = torch.get_rng_state()
    gather(toy(folder, n_workers=n_workers).loader("train"))
    assert torch.equal(torch.get_rng_state(), state)


def test_an_abandoned_iteration_leaves_no_workers(folder):
    batches = iter(toy(folder, n_workers=2).loader("train"))
    next(batches)
    assert len(own_workers()) == 2
    del batches
    gc.collect()
    assert not own_workers()


# --- splits


def test_validation_is_held_out_of_training_once_and_for_all(folder):
    data = toy(folder, seed=1)
    found = {split: numbers(gather(data.loader(split, shuffle=False))) for split in SPLITS}
    assert torch.equal(found["test"], torch.arange(N_TRAIN, N_TRAIN + N_TEST))
    both = torch.cat([found["train"], found["val"]])
    assert len(found["val"]) == 6 and torch.equal(both.sort().values, torch.arange(N_TRAIN))
    assert torch.equal(data.labels("val").bincount(), torch.tensor([2, 2, 2]))
    for split in SPLITS:
        assert torch.equal(data.labels(split), found[split] % N_CLASSES)
        assert torch.equal(data.labels(split), toy(folder, seed=2).labels(split))


def test_finding_the_images_opens_none_of_them(folder, monkeypatch):
    monkeypatch.setattr(Image, "open", lambda path: pytest.fail(f"{path} was opened"))
    data = toy(folder)
    data.setup()
    assert [data.n_examples(split) for split in SPLITS] == [24, 6, 9]


def test_files_that_are_not_there_are_counted(folder, tmp_path):
    for i in range(0, N_TRAIN, 2):
        save_plain(tmp_path / f"{i}.png", value=i)
    with pytest.raises(DataError, match="15 of 30 images of 'train', 0 of 9 images of 'test'"):
        toy(tmp_path).setup()
    with pytest.raises(DataError, match="there are 0 of 9 images of 'test'"):
        toy(tmp_path, is_complete=False).setup()
    save_plain(tmp_path / f"{N_TRAIN}.png", value=N_TRAIN)
    part = toy(tmp_path, is_complete=False)
    assert [part.n_examples(split) for split in SPLITS] == [12, 3, 1]
    assert set(numbers(gather(part.loader("train"))).tolist()) <= set(range(0, N_TRAIN, 2))


def test_nothing_at_all_is_an_error(tmp_path):
    with pytest.raises(DataError, match="0 of 30 images of 'train'"):
        toy(tmp_path / "missing").setup()


# --- files


def single(folder, path, n_channels=3, **kwargs):
    """The images of a data set of copies of one file."""

    class Single(StreamedImages):
        kind = "colour_image" if n_channels == 3 else "bw_image"
        n_outputs = 2

        def open_splits(self):
            files = ImageFiles([path] * 6, torch.tensor([0, 0, 0, 1, 1, 1]))
            return dict.fromkeys(SPLITS, files)

    Single.n_channels = n_channels
    data = Single(side=SIDE, data_dir=str(folder), **kwargs)
    return gather(data.loader("test"))


@pytest.mark.parametrize("size", [(1, 7), (200, 3), (8, 8)])
@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("RGB", "jpg"),
        ("L", "jpg"),
        ("CMYK", "jpg"),
        ("RGBA", "png"),
        ("LA", "png"),
        ("P", "png"),
        ("1", "png"),
        ("P", "gif"),
    ],
)
def test_images_of_any_mode_and_size_become_colour_images(tmp_path, mode, suffix, size):
    path = tmp_path / f"image.{suffix}"
    save_noise(path, seed=1, mode=mode, size=size)
    with Image.open(path) as image:
        assert image.mode == mode
    images = single(tmp_path, path)
    assert images.shape == (6, 3, SIDE, SIDE)
    is_grey = torch.equal(images[:, 0], images[:, 1]) and torch.equal(images[:, 0], images[:, 2])
    assert is_grey == (mode in ("L", "LA", "1"))


def test_the_suffix_does_not_matter(tmp_path):
    save_noise(tmp_path / "right.png", seed=1)
    wrong = tmp_path / "wrong.jpg"
    wrong.write_bytes((tmp_path / "right.png").read_bytes())
    assert torch.equal(single(tmp_path, wrong), single(tmp_path, tmp_path / "right.png"))


def test_colour_images_become_greyscale_where_one_channel_is_asked_for(tmp_path):
    path = tmp_path / "image.png"
    save_noise(path, seed=1, size=(SIDE, SIDE))
    grey = torch.tensor(list(Image.open(path).convert("L").tobytes())).view(SIDE, SIDE)
    images = single(tmp_path, path, n_channels=1)
    assert torch.equal((255 * images[0, 0]).round().long(), grey)


@pytest.mark.parametrize(
    ("damage", "n_workers"),
    [("truncated", 0), ("truncated", 1), ("empty", 0), ("no image", 0), ("deleted", 0)],
)
def test_a_damaged_image_is_named(tmp_path, damage, n_workers):
    path = tmp_path / "cat_17.jpg"
    save_noise(path, seed=1, size=(64, 64))
    content = path.read_bytes()
    left = {"truncated": content[: len(content) // 2], "empty": b"", "no image": b"<html>404"}
    path.write_bytes(left.get(damage, b""))
    if damage == "deleted":
        path.unlink()
    with pytest.raises(DataError, match="cannot read image.*cat_17.jpg"):
        single(tmp_path, path, n_workers=n_workers)


def test_an_image_of_another_shape_is_named_if_nothing_resizes_it(tmp_path):
    path = tmp_path / "cat_17.png"
    save_noise(path, seed=1, size=(SIDE + 1, SIDE))
    with pytest.raises(DataError, match=r"cat_17.png is \[3, 8, 9\].*\[3, 8, 8\].*base_resize"):
        single(tmp_path, path, base_resize="none")


def test_without_resizing_pixels_are_exact(tmp_path):
    path = tmp_path / "image.png"
    save_noise(path, seed=1, size=(SIDE, SIDE))
    images = single(tmp_path, path, base_resize="none")
    pixels = torch.tensor(list(Image.open(path).tobytes())).view(SIDE, SIDE, 3).permute(2, 0, 1)
    assert torch.equal(images, pixels.expand(6, -1, -1, -1).float() / 255)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_are_made_on_the_gpu(folder):
    data = toy(folder, auxiliary="positive", equivalence=["label", "hflip"], n_workers=2)
    for batch in data.loader("train", device="cuda"):
        assert all(tensor.is_cuda for tensor in batch)
        assert torch.equal(numbers(batch.x) % N_CLASSES, batch.y)
        assert torch.equal(numbers(batch.aux) % N_CLASSES, batch.y)


def test_jobs_that_run_in_parallel_have_workers_of_their_own(folder):
    """joblib starts the processes of a sweep in a way that their loaders must not inherit."""
    paths = [str(folder / f"{i}.png") for i in range(4)]

    def read():  # nested, so that it travels by value
        import torch

        from utils.data.imagenet import ImageNetDataModule
        from utils.data.streamed import ImageFiles

        data = ImageNetDataModule(side=8, base_resize="resize", n_workers=2)
        source = ImageFiles(paths, torch.arange(4))
        batches = torch.arange(4).split(2)
        return [y.tolist() for _, y in data.stream(source, "test", batches, torch.device("cpu"))]

    assert (
        joblib.Parallel(n_jobs=2)(joblib.delayed(read)() for _ in range(2))
        == [[[0, 1], [2, 3]]] * 2
    )
