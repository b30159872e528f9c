"""Batches of images: order, unreadable images, system limits."""

import multiprocessing
import os
import resource
import signal
import sys
import warnings

import numpy as np
import pytest
import torch
from helpers.processes import own_workers
from helpers.tiny_clip import SIDE
from PIL import Image
from torch.utils.data import Subset, TensorDataset
from torchvision import datasets

from lossyless.hub import SourceError
from lossyless.hub.batches import Examples, read_batches
from lossyless.hub.images import ImageFolder, image_names, take_shard
from lossyless.parallel import WorkerError


def read(compressor, dataset, *, has_labels=False, on_error="raise", **kwargs):
    """All images [N, 3, side, side], labels [N] and names of a data set."""
    examples = Examples(
        dataset, compressor.transform, SIDE, has_labels=has_labels, on_error=on_error
    )
    batches = read_batches(examples, device=torch.device("cpu"), **kwargs)
    images, labels, names = zip(*batches, strict=True)
    labels = np.concatenate(labels).tolist() if has_labels else None
    return torch.cat(images), labels, None if names[0] is None else sum(names, [])


def test_images_may_be_transformed_or_not(compressor, pictures, X):
    for dataset, has_labels in (
        (pictures, False),
        ([(picture,) for picture in pictures], False),
        ([(picture, i) for i, picture in enumerate(pictures)], True),
        ([(x, i, "more") for i, x in enumerate(X)], True),
    ):
        images, labels, names = read(compressor, dataset, has_labels=has_labels)
        assert torch.equal(images, X) and names is None
        assert labels == (list(range(10)) if has_labels else None)


@pytest.mark.parametrize("n_workers", [0, 2])
def test_batches_and_workers_change_nothing(compressor, X, n_workers):
    state = torch.get_rng_state()
    dataset = [(x, i) for i, x in enumerate(X)]
    kwargs = {"batch_size": 3, "num_workers": n_workers}
    images, labels, _ = read(compressor, dataset, has_labels=True, **kwargs)
    assert torch.equal(images, X) and labels == list(range(10))
    assert torch.equal(torch.get_rng_state(), state)


def test_settings_that_change_the_examples_are_rejected(compressor, X):
    kwargs = {"pin_memory": False, "generator": torch.Generator(), "shuffle": False}
    assert len(read(compressor, list(X), **kwargs)[0]) == 10
    for name, value in (
        ("collate_fn", list),
        ("shuffle", True),
        ("sampler", [1, 0]),
        ("drop_last", True),
        ("in_order", False),
        ("batch_size", None),
    ):
        with pytest.raises(ValueError, match=f"kwargs_dataloader: {name}"):
            read(compressor, list(X), **{name: value})


def test_unnormalised_images_give_a_warning(compressor, X):
    with pytest.warns(UserWarning, match="not normalised"):
        read(compressor, TensorDataset(torch.rand(3, 3, SIDE, SIDE)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(compressor, TensorDataset(X), num_workers=0)


# --- bad examples


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (torch.zeros(3, SIDE, SIDE, dtype=torch.uint8), "uint8"),
        (torch.zeros(3, 8, 8), r"\[3, 8, 8\]"),
        (np.zeros((SIDE, SIDE, 3), np.float32), "float32"),
        ("photo.png", "str"),
    ],
    ids=str,
)
def test_examples_that_are_not_images_are_named(compressor, X, image, found):
    with pytest.raises(SourceError, match=f"image 1 of list: .*found.*{found}"):
        read(compressor, [X[0], image])
    with pytest.raises(SourceError, match="list_iterator"):
        read(compressor, iter([X[0]]))


@pytest.fixture
def damaged(folder, tmp_path) -> tuple[ImageFolder, list[str]]:
    """A folder, and the names of bad files: of unknown range, truncated, and a broken link."""
    images = ImageFolder(folder, has_classes=True)
    names = [image_names(images)[i] for i in (0, 4, 9)]
    dark, cut, link = (folder / name for name in names)
    Image.fromarray(np.full((9, 9), 4095, np.uint16)).save(dark)
    cut.write_bytes(cut.read_bytes()[:60])
    link.unlink()
    link.symlink_to(tmp_path / "nowhere.png")
    return images, names


@pytest.mark.parametrize("n_workers", [0, 1])
def test_damaged_images_are_named_in_one_line(compressor, damaged, n_workers):
    images, names = damaged
    for i, name in zip((0, 2, 5), names, strict=True):
        shard = take_shard(images, i, 6)
        with pytest.raises(SourceError, match=f"{name}.*--on-error skip") as caught:
            read(compressor, shard, num_workers=n_workers)
        assert "\n" not in str(caught.value)
        assert not own_workers()  # although the error still refers to their iterator
    with pytest.raises(SourceError, match=names[1]):
        read(compressor, datasets.ImageFolder(images.root), num_workers=n_workers)


@pytest.mark.parametrize("batch_size", [1, 4, 10])
def test_damaged_images_can_be_skipped(compressor, damaged, batch_size):
    images, bad = damaged
    kwargs = {"has_labels": True, "batch_size": batch_size, "num_workers": 0}
    with pytest.warns(UserWarning, match="skipped") as caught:
        X, labels, names = read(compressor, images, on_error="skip", **kwargs)
    assert [sum(name in str(w.message) for w in caught) for name in bad] == [1, 1, 1]
    kept = [i for i, name in enumerate(image_names(images)) if name not in bad]
    assert names == [image_names(images)[i] for i in kept]
    assert labels == [images.samples[i][1] for i in kept]
    assert torch.equal(X, read(compressor, Subset(images, kept), num_workers=0)[0])


def test_other_errors_are_not_skipped(compressor, damaged, X):
    images, _ = damaged
    with pytest.warns(UserWarning), pytest.raises(SourceError, match="all 2 images"):
        read(compressor, Subset(images, [0, 9]), on_error="skip")
    with pytest.raises(SourceError, match="image 1"):
        read(compressor, [X[0], "photo.png"], on_error="skip")
    with pytest.raises(ValueError, match="on_error: .*'ignore'"):
        read(compressor, images, on_error="ignore")


# --- limits of the system


@pytest.mark.parametrize("kwargs", [{}, {"num_workers": 2}])
def test_daemonic_processes_read_images_themselves(compressor, X, monkeypatch, kwargs):
    monkeypatch.setattr("lossyless.hub.batches.available_cores", lambda: 8)
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    assert torch.equal(read(compressor, list(X), **kwargs)[0], X)


@pytest.mark.filterwarnings("ignore:This process")
@pytest.mark.parametrize(
    ("label", "has_labels"),
    [
        (torch.tensor, True),
        (lambda i: [torch.tensor(i)], True),
        (lambda i: {"box": torch.zeros(4)}, False),
    ],
    ids=["tensors", "lists of tensors", "not wanted"],
)
def test_labels_do_not_use_open_files(compressor, X, label, has_labels):
    """Each tensor that a worker returns is an open file; at the limit, the loader would hang."""
    n, soft = 128, resource.getrlimit(resource.RLIMIT_NOFILE)
    dataset = [(X[i % 10], label(i)) for i in range(n)]
    n_open = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (n_open + 40, soft[1]))
    try:
        kwargs = {"num_workers": 1, "timeout": 60}
        images, labels, _ = read(compressor, dataset, has_labels=has_labels, **kwargs)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, soft)
    assert len(images) == n
    assert not has_labels or np.ravel(labels).tolist() == list(range(n))


def killed(i):
    os.kill(os.getpid(), signal.SIGKILL)


def without_memory(i):
    raise RuntimeError("unable to open shared memory object </torch_1> in read-write mode")


def of_the_user(i):
    raise RuntimeError("a bug")


@pytest.mark.skipif(sys.platform != "linux", reason="workers fork only on Linux")
@pytest.mark.filterwarnings("ignore:This process")
def test_errors_of_the_system_in_workers_are_one_line(compressor):
    class Failing(list):
        def __getitem__(self, i):
            return super().__getitem__(i)(i)

    for function in (killed, without_memory):
        with pytest.raises(WorkerError, match="--workers 0") as caught:
            read(compressor, Failing([function]), num_workers=1)
        assert "\n" not in str(caught.value)
    with pytest.raises(RuntimeError, match="a bug") as caught:
        read(compressor, Failing([of_the_user]), num_workers=1)
    assert caught and not own_workers()
