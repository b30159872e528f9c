"""MNIST, CIFAR, STL-10 and their like, from small archives in the formats of the originals."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import urllib.request
from functools import partial
from urllib.error import URLError

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from PIL import Image
from torchvision import datasets

from utils.configs.composing import compose_config
from utils.data.augmentations import Augmentation
from utils.data.cifar import CIFAR10DataModule, CIFAR100DataModule
from utils.data.mnist import MNISTDataModule
from utils.data.module import SPLITS, DataError
from utils.data.stl10 import STL10DataModule, STL10UnlabeledDataModule

N_TRAIN, N_TEST, N_UNLABELED = 40, 20, 8
N_CLASSES = 10
LABELS = {"train": np.arange(N_TRAIN) * 7 % N_CLASSES, "test": np.arange(N_TEST) * 3 % N_CLASSES}
STL10_CLASSES = ["airplane", "bird", "car", "cat", "deer"]
STL10_CLASSES += ["dog", "horse", "monkey", "ship", "truck"]


class FashionMNISTDataModule(MNISTDataModule):
    """All that it takes to add a data set in the format of another one."""

    ORIGINAL = datasets.FashionMNIST
    DOWNLOAD = "31 MB"
    class_names = tuple(datasets.FashionMNIST.classes)


def draw(n, *shape, seed):
    """Images [n, *shape], uint8."""
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


MNIST = {split: draw(len(y), 28, 28, seed=0) for split, y in LABELS.items()}
CIFAR = {split: draw(len(y), 3, 32, 32, seed=1) for split, y in LABELS.items()}
STL10 = {split: draw(len(y), 3, 96, 96, seed=2) for split, y in LABELS.items()}
STL10["unlabeled"] = draw(N_UNLABELED, 3, 96, 96, seed=3)


def md5(content):
    return hashlib.md5(content).hexdigest()


def idx(array):
    """The format of MNIST: a magic number that tells type and rank, sizes, bytes."""
    return struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def tar_gz(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def put_mnist(root, monkeypatch, original=datasets.MNIST):
    arrays = {
        "train-images-idx3-ubyte": MNIST["train"],
        "train-labels-idx1-ubyte": LABELS["train"].astype(np.uint8),
        "t10k-images-idx3-ubyte": MNIST["test"],
        "t10k-labels-idx1-ubyte": LABELS["test"].astype(np.uint8),
    }
    resources = []
    for name, array in arrays.items():
        file = root / original.__name__ / "raw" / f"{name}.gz"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(gzip.compress(idx(array)))
        resources.append((file.name, md5(file.read_bytes())))
    monkeypatch.setattr(original, "resources", resources)


def put_archive(root, monkeypatch, data_set, files):
    """Write the archive of a data set and make its checksums torchvision's."""
    archive = tar_gz({f"{data_set.base_folder}/{name}": c for name, c in files.items()})
    (root / data_set.filename).write_bytes(archive)
    monkeypatch.setattr(data_set, "tgz_md5", md5(archive))
    for attribute in ("train_list", "test_list"):
        names = [name for name, _ in getattr(data_set, attribute)]
        monkeypatch.setattr(data_set, attribute, [[name, md5(files[name])] for name in names])


def batch(images, **labels):
    return pickle.dumps({"data": images.reshape(len(images), -1), **labels})


def put_cifar10(root, monkeypatch):
    parts = zip(np.split(CIFAR["train"], 5), np.split(LABELS["train"], 5), strict=True)
    files = {
        f"data_batch_{i}": batch(images, labels=labels.tolist())
        for i, (images, labels) in enumerate(parts, start=1)
    }
    files["test_batch"] = batch(CIFAR["test"], labels=LABELS["test"].tolist())
    files["batches.meta"] = pickle.dumps({"label_names": list("abcdefghij")})
    put_archive(root, monkeypatch, datasets.CIFAR10, files)
    meta = datasets.CIFAR10.meta | {"md5": md5(files["batches.meta"])}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)


def put_cifar100(root, monkeypatch):
    files = {
        split: batch(
            CIFAR[split],
            fine_labels=LABELS[split].tolist(),
            coarse_labels=(LABELS[split] // 5).tolist(),
        )
        for split in ("train", "test")
    }
    files["meta"] = pickle.dumps({"fine_label_names": list("abcdefghij")})
    put_archive(root, monkeypatch, datasets.CIFAR100, files)
    meta = datasets.CIFAR100.meta | {"md5": md5(files["meta"])}
    monkeypatch.setattr(datasets.CIFAR100, "meta", meta)


def put_stl10(root, monkeypatch):
    """Images are stored column by column, classes count from 1."""
    files = {f"{s}_X.bin": x.transpose(0, 1, 3, 2).tobytes() for s, x in STL10.items()}
    files |= {f"{s}_y.bin": (y + 1).astype(np.uint8).tobytes() for s, y in LABELS.items()}
    files["class_names.txt"] = "\n".join(STL10_CLASSES).encode()
    files["fold_indices.txt"] = b"0 1 2\n" * 10
    put_archive(root, monkeypatch, datasets.STL10, files)


PUT = {
    MNISTDataModule: put_mnist,
    FashionMNISTDataModule: partial(put_mnist, original=datasets.FashionMNIST),
    CIFAR10DataModule: put_cifar10,
    CIFAR100DataModule: put_cifar100,
    STL10DataModule: put_stl10,
    STL10UnlabeledDataModule: put_stl10,
}
SIDES = {STL10DataModule: 96, STL10UnlabeledDataModule: 96}  # others: 32
ORIGINALS = {  # images as they are in memory
    MNISTDataModule: {split: images[:, None] for split, images in MNIST.items()},
    FashionMNISTDataModule: {split: images[:, None] for split, images in MNIST.items()},
    CIFAR10DataModule: CIFAR,
    CIFAR100DataModule: CIFAR,
    STL10DataModule: STL10,
}


@pytest.fixture(params=PUT, ids=lambda data_set: data_set.__name__.removesuffix("DataModule"))
def data_set(request):
    return request.param


@pytest.fixture
def make(monkeypatch, tmp_path):
    """Builds a data set from a small archive, or from nothing if `is_there` is false."""
    small = {"train": N_TRAIN, "test": N_TEST}
    for module in PUT:
        is_unlabeled = module is STL10UnlabeledDataModule
        sizes = small | {"train": N_UNLABELED} if is_unlabeled else small
        monkeypatch.setattr(module, "SIZES", sizes)

    def make(data_set, is_there=True, **kwargs):
        if is_there and not any(tmp_path.iterdir()):
            PUT[data_set](tmp_path, monkeypatch)
        side = SIDES.get(data_set, 32)
        defaults = {"data_dir": str(tmp_path), "val_fraction": 0.25, "side": side}
        return data_set(**(defaults | kwargs))

    return make


def sorted_pairs(images, labels):
    """The pairs of image and label in an order that does not depend on theirs."""
    images = np.asarray(images).reshape(len(images), -1)
    return sorted((image.tobytes(), int(y)) for image, y in zip(images, labels, strict=True))


# --- images and classes


@pytest.mark.parametrize("data_set", ORIGINALS, ids=lambda data_set: data_set.__name__)
def test_at_their_original_size_images_are_the_original_ones(make, data_set):
    side = ORIGINALS[data_set]["test"].shape[-1]
    data = make(data_set, side=side)
    images, labels = data.splits["test"]
    assert np.array_equal(images, ORIGINALS[data_set]["test"])
    assert np.array_equal(labels, LABELS["test"])
    parts = [data.splits[split] for split in ("train", "val")]
    images, labels = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    assert sorted_pairs(images, labels) == sorted_pairs(
        ORIGINALS[data_set]["train"], LABELS["train"]
    )
    assert [data.n_examples(split) for split in SPLITS] == [30, 10, 20]
    assert data.labels("val").bincount().tolist() == [1] * N_CLASSES


def test_unlabelled_images_are_for_training_and_validation(make):
    data = make(STL10UnlabeledDataModule)
    assert [data.n_examples(split) for split in SPLITS] == [6, 2, N_TEST]
    images, labels = (
        torch.cat(tensors) for tensors in zip(data.splits["train"], data.splits["val"], strict=True)
    )
    assert sorted_pairs(images, labels) == sorted_pairs(STL10["unlabeled"], [-1] * N_UNLABELED)
    assert np.array_equal(data.splits["test"][0], STL10["test"])
    assert np.array_equal(data.labels("test"), LABELS["test"])


def test_classes_are_named(make, data_set):
    data = make(data_set)
    data.setup()
    names = {MNISTDataModule: "0123456789", CIFAR10DataModule: "abcdefghij"}
    names[CIFAR100DataModule] = names[CIFAR10DataModule]
    names[FashionMNISTDataModule] = datasets.FashionMNIST.classes
    assert data.class_names == tuple(names.get(data_set, STL10_CLASSES))


def test_batches_have_the_shape_of_the_data_set(make, data_set):
    data = make(data_set, batch_size=4, auxiliary="positive", equivalence=["shear--"])
    for split in SPLITS:
        found = next(iter(data.loader(split)))
        assert found.x.shape == found.aux.shape == (len(found.y), *data.shape)
        assert found.x.dtype == torch.float32 and found.y.dtype == torch.int64
        assert found.x.min() >= 0 and found.x.max() <= 1


@pytest.mark.parametrize("side", [16, 32, 64])
def test_mnist_is_enlarged_as_pillow_does_it(make, side):
    data = make(MNISTDataModule, side=side)  # 64: batch by batch
    x = next(iter(data.loader("test"))).x
    for image, original in zip(x, MNIST["test"], strict=True):
        expected = Image.fromarray(original).resize((side, side), Image.Resampling.BILINEAR)
        assert (255 * image[0] - torch.tensor(np.asarray(expected))).abs().max() < 2.01


def test_digits_of_a_class_can_be_equivalent(make):
    settings = {"equivalence": ["rotation", "label"]}
    data = make(MNISTDataModule, side=28, auxiliary="representative", **settings)
    images, labels = data.splits["train"]
    found = next(iter(data.loader("train")))
    for aux, y in zip(found.aux, found.y, strict=True):
        assert torch.equal(aux, images[labels == y][0].float() / 255)
    with pytest.raises(ValueError, match="STL10UnlabeledDataModule does not have"):
        make(STL10UnlabeledDataModule, **settings)


def test_batches_are_the_same_for_the_same_seed(make, data_set):
    settings = {"auxiliary": "positive", "equivalence": ["rotation", "erasing"], "batch_size": 5}
    first, again, other = (
        torch.cat([b.x for b in make(data_set, seed=seed, **settings).loader("train")])
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


# --- files


def test_what_is_there_is_read_without_a_word(make, data_set, capsys):
    make(data_set).setup()
    assert "downloading" in capsys.readouterr().out  # here: unpacking the archive that is there
    make(data_set).setup()
    assert not capsys.readouterr().out


def test_a_failing_download_says_how_large_it_is_and_what_to_put_where(
    make, data_set, monkeypatch, tmp_path, capsys
):
    def no_network(*args, **kwargs):
        raise URLError("Name or service not known")

    for module in (datasets.mnist, datasets.cifar, datasets.stl10):
        monkeypatch.setattr(module, "download_and_extract_archive", no_network)
    with pytest.raises(DataError, match=r"[GM]B\) could not be downloaded") as error:
        make(data_set, is_there=False).setup()
    message = str(error.value)
    assert "service not known" in message and str(tmp_path) in message and "gz" in message
    assert "downloading" in capsys.readouterr().out


def test_what_was_deleted_is_unpacked_again(make, data_set, tmp_path):
    expected = make(data_set).splits["test"]
    files = [path for path in tmp_path.rglob("*") if path.is_file() and "gz" not in path.suffix]
    next(path for path in sorted(files) if "test" in path.name or "t10k" in path.name).unlink()
    found = make(data_set).splits["test"]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    "name", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"]
)
@pytest.mark.parametrize("n_left", [0, 3, 9, 25])
def test_damaged_files_of_mnist_are_data_errors(make, tmp_path, name, n_left):
    make(MNISTDataModule).setup()
    file = tmp_path / "MNIST" / "raw" / name
    file.write_bytes(file.read_bytes()[:n_left])
    with pytest.raises(DataError, match="delete what an earlier download left"):
        make(MNISTDataModule).setup()


def test_damaged_archives_are_data_errors(make, data_set, monkeypatch, tmp_path):
    def no_network(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    data = make(data_set)
    for archive in tmp_path.rglob("*.gz"):
        archive.write_bytes(archive.read_bytes()[:-20])
    with pytest.raises(DataError, match="no network"):
        data.setup()


def test_too_few_images_are_an_error_unless_asked_for(make, data_set, monkeypatch):
    monkeypatch.setitem(data_set.SIZES, "test", N_TEST + 1)
    with pytest.raises(DataError, match=f"{N_TEST} of {N_TEST + 1} images of 'test'"):
        make(data_set).setup()
    assert make(data_set, is_complete=False).n_examples("test") == N_TEST


# --- configs

CONTRASTIVE = ["hflip", "resize_crop", "color", "gray"]
NAMES = {
    "mnist": (MNISTDataModule, []),
    "mnist_aug": (
        MNISTDataModule,
        ["rotation", "x_translation", "y_translation", "shear", "scale"],
    ),
    "mnist_aug_less": (
        MNISTDataModule,
        ["rotation--", "x_translation--", "y_translation--", "shear--", "scale--"],
    ),
    "mnist_aug_sup": (
        MNISTDataModule,
        ["rotation", "x_translation", "y_translation", "shear", "scale", "label"],
    ),
    "cifar10": (CIFAR10DataModule, CONTRASTIVE),
    "cifar100": (CIFAR100DataModule, CONTRASTIVE),
    "stl10": (STL10DataModule, CONTRASTIVE),
    "stl10_aug": (STL10DataModule, CONTRASTIVE),
    "stl10_unlabeled": (STL10UnlabeledDataModule, CONTRASTIVE),
}


@pytest.mark.parametrize("name", NAMES)
def test_the_config_agrees_with_the_data_set(name):
    cfg = compose_config([f"data@data_feat={name}"]).data_feat
    data_set, equivalence = NAMES[name]
    data = instantiate(cfg.kwargs)
    assert type(data) is data_set and cfg.name == name
    assert list(cfg.kwargs.equivalence) == equivalence
    assert (tuple(cfg.shape), cfg.kind, cfg.task) == (data.shape, data.kind, data.task)
    assert cfg.n_outputs == data.n_outputs
    if data_set is MNISTDataModule:  # pixels are taken as they are
        assert cfg.mean is None and cfg.std is None
    else:
        assert len(cfg.mean) == len(cfg.std) == data.shape[0]
    n_train = data.SIZES["train"]
    n_held_out = 0 if "val" in data.SIZES else round(cfg.kwargs.val_fraction * n_train)
    assert cfg.length == n_train - n_held_out


@pytest.mark.parametrize("name", ["mnist_aug", "mnist_aug_less"])
def test_all_compressors_of_augmented_mnist_are_evaluated_alike(name):
    data = instantiate(compose_config([f"data@data_feat={name}"]).data_feat.kwargs)
    strong = Augmentation(NAMES["mnist_aug"][1])
    assert data.augmentation_of("train").affine == Augmentation(NAMES[name][1]).affine
    for split in ("val", "test"):
        assert data.augmentation_of(split).affine == strong.affine
