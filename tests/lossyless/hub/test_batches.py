"""Images reach the compressor in the data set's order; bad ones are named; limits are kept."""

import multiprocessing
import os
import signal
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_clip import SIDE
from torch.utils.data import Subset, TensorDataset
from torchvision import datasets

from lossyless.hub import SourceError
from lossyless.hub.batches import Examples, read_batches
from lossyless.hub.images import ImageFolder
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


def test_settings_that_change_the_examples_are_refused(compressor, X):
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


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux")
@pytest.mark.parametrize("kwargs", [{}, {"num_workers": 2}])
def test_daemonic_processes_read_images_themselves(compressor, X, monkeypatch, kwargs):
    monkeypatch.setattr("lossyless.hub.batches.available_cores", lambda: 8)
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    assert torch.equal(read(compressor, list(X), **kwargs)[0], X)


def test_unnormalised_images_are_noticed(compressor, X):
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
def test_what_is_no_image_is_named(compressor, X, image, found):
    with pytest.raises(SourceError, match=f"image 1 of list: .*found.*{found}"):
        read(compressor, [X[0], image])
    with pytest.raises(SourceError, match="list_iterator"):
        read(compressor, iter([X[0]]))


@pytest.mark.parametrize("n_workers", [0, 1])
def test_damaged_images_are_named_in_one_line(compressor, folder, tmp_path, n_workers):
    bad = sorted(folder.rglob("*.png"))[4]
    content = bad.read_bytes()
    for damaged in (b"", content[:60]):
        bad.write_bytes(damaged)
        with pytest.raises(SourceError) as caught:
            read(compressor, ImageFolder(folder), num_workers=n_workers)
        assert str(bad) in str(caught.value) and "Traceback" not in str(caught.value)
    bad.unlink()
    bad.symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(SourceError, match=str(bad)):
        read(compressor, ImageFolder(folder), num_workers=n_workers)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux")
@pytest.mark.filterwarnings("ignore:This process")
def test_a_process_that_is_killed_is_one_line(compressor):
    class Killing(list):
        def __getitem__(self, i):
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(WorkerError, match="--workers 0") as caught:
        read(compressor, Killing([0]), num_workers=1)
    assert "\n" not in str(caught.value)


def test_bad_files_of_torchvision_folders_are_named(compressor, folder):
    dataset = Subset(datasets.ImageFolder(folder), [7, 2])
    path = Path(dataset.dataset.samples[2][0])
    path.write_bytes(b"")
    with pytest.raises(SourceError, match=str(path)):
        read(compressor, dataset)
