"""Code written for the official hub runs unchanged."""

import pickle
import re

import numpy as np
import pytest
import torch
from helpers.tiny import ROOT
from helpers.tiny_clip import SIDE, Z_DIM
from sklearn.svm import LinearSVC
from torch.utils.data import DataLoader
from torchvision.datasets import FakeData

RATE = r"Rate: \d+\.\d\d bits/img \| Encoding: \d+\.\d\d img/sec"
DECODING = r"Decoding: \d+\.\d\d img/sec"


@pytest.fixture(scope="module")
def loaded(weights):
    is_jit = True
    return torch.hub.load(
        str(ROOT), "clip_compressor_b005", "cpu", is_jit, source="local", **weights
    )


@pytest.fixture(scope="module")
def X(loaded) -> torch.Tensor:
    compressor, transform = loaded
    images = FakeData(6, (3, SIDE, SIDE), 3, transform=transform)
    return next(iter(DataLoader(images, batch_size=6)))[0].to(compressor.device)


def test_the_example_of_the_official_readme(loaded, tmp_path, capsys):
    compressor, transform = loaded
    DATA_DIR = str(tmp_path)
    stl10_train = FakeData(40, (3, 96, 96), 3, transform=transform)
    stl10_test = FakeData(20, (3, 96, 96), 3, transform=transform, random_offset=40)

    # this requires GPU
    compressor.compress_dataset(
        stl10_train,
        f"{DATA_DIR}/stl10_train_Z.bin",
        label_file=f"{DATA_DIR}/stl10_train_Y.npy",
        kwargs_dataloader=dict(batch_size=16, num_workers=2),
    )
    compressor.compress_dataset(
        stl10_test,
        f"{DATA_DIR}/stl10_test_Z.bin",
        label_file=f"{DATA_DIR}/stl10_test_Y.npy",
        kwargs_dataloader=dict(batch_size=16, num_workers=0),
        is_info=False,
    )
    Z_train, Y_train = compressor.decompress_dataset(
        f"{DATA_DIR}/stl10_train_Z.bin", label_file=f"{DATA_DIR}/stl10_train_Y.npy"
    )
    Z_test, Y_test = compressor.decompress_dataset(
        f"{DATA_DIR}/stl10_test_Z.bin",
        label_file=f"{DATA_DIR}/stl10_test_Y.npy",
        is_info=False,
        is_cpu=False,
    )
    clf = LinearSVC(C=7e-3)
    clf.fit(Z_train, Y_train)
    assert 0 <= clf.score(Z_test, Y_test) <= 1

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert re.fullmatch(RATE, lines[0]) and re.fullmatch(DECODING, lines[1])
    for Z, Y, dataset in ((Z_train, Y_train, stl10_train), (Z_test, Y_test, stl10_test)):
        assert isinstance(Z, np.ndarray) and Z.dtype == np.float32 and Y.dtype == np.int64
        assert Y.tolist() == [int(label) for _, label in dataset]
    np.testing.assert_array_equal(Z_test[:1], compressor(stl10_test[0][0][None]).numpy())


def test_the_methods_of_the_official_compressor(loaded, X):
    compressor, transform = loaded
    compressor = compressor.to("cpu").eval()
    assert compressor.preprocess is transform and isinstance(compressor.get_rate(X), float)
    assert (compressor.z_dim, compressor.side_z_dim) == (Z_DIM, Z_DIM // 5)
    assert compressor.device == torch.device("cpu")
    z, z_hat, streams = compressor.clip(X), compressor(X), compressor.compress(X)
    assert torch.equal(z, compressor.encode(X))
    z_in, bottleneck = compressor.process_z_in(z), compressor.entropy_bottleneck
    expected = (z + compressor.biasing) * compressor.scaling.exp()
    torch.testing.assert_close(z_in, expected[..., None, None])
    z_hat_in, likelihoods = bottleneck(z_in)
    assert z_in.shape == z_hat_in.shape == likelihoods.shape == (len(X), Z_DIM, 1, 1)
    torch.testing.assert_close(-likelihoods.log2().sum((1, 2, 3)), compressor.theoretical_rate(X))
    assert bottleneck.compress(z_in) == streams
    for received in (z_hat_in, bottleneck.decompress(streams, [1, 1])):
        assert torch.equal(compressor.process_z_out(received), z_hat)
    compressor.make_pickable_()
    again = pickle.loads(pickle.dumps(compressor))
    compressor.undo_pickable_()
    assert again.compress(X) == streams
