"""ClipCompressor, with randomly initialised networks."""

import copy
import math
import pickle
from shutil import SameFileError

import numpy as np
import pytest
import torch
from helpers.tiny_clip import SIDE, Z_DIM
from PIL import Image
from torch.utils.data import TensorDataset

from lossyless.hub import ClipCompressor, FeatureCompressor, SourceError
from lossyless.hub.official_format import is_official
from lossyless.rates import HFactorized, HHyper

N = 10


@torch.no_grad()
def test_all_ways_of_coding_give_the_same_features(compressor, X, tmp_path):
    z_hat = compressor(X)
    assert z_hat.shape == (N, Z_DIM) and z_hat.dtype == torch.float32
    half_cell = 0.5 * (-compressor.rate.scaling).exp()
    assert ((z_hat - compressor.backbone(X)).abs() <= half_cell + 1e-4).all()
    streams = compressor.compress(X)
    assert len(streams) == N and streams == compressor(X, is_compress=True)
    assert torch.equal(compressor.decompress(streams), z_hat)
    assert [s for x in X for s in compressor.compress(x[None])] == streams  # alone or together
    state = torch.get_rng_state()
    for format in ("container", "official"):
        compressor.compress_dataset(TensorDataset(X), tmp_path / "Z", format=format)
        assert is_official(tmp_path / "Z") == (format == "official")
        np.testing.assert_array_equal(compressor.decompress_dataset(tmp_path / "Z"), z_hat)
    assert torch.equal(torch.get_rng_state(), state)


def test_coded_bits_are_the_theoretical_rate(compressor, X):
    rates = compressor.theoretical_rate(X)
    assert rates.shape == (N,) and (rates > 0).all()
    coded = torch.tensor([8.0 * len(stream) for stream in compressor.compress(X)])
    # a separate stream has a tail of up to 96 bits; official tables cut the tails of the density
    assert (coded > 0.97 * rates - 8).all() and (coded < 1.05 * rates + 96).all()
    assert compressor.get_rate(X) == coded.double().mean().item()


def test_training_mode_and_precision_have_no_effect(compressor, X):
    z_hat, streams = compressor(X), compressor.compress(X)
    assert not any(p.requires_grad for p in compressor.parameters()) and not z_hat.requires_grad
    assert not any(module.training for module in compressor.train().modules())
    for converted in (compressor.half(), compressor.to(torch.float64), compressor.to("cpu")):
        assert {p.dtype for p in converted.parameters()} == {torch.float32}
        assert torch.equal(converted(X), z_hat)
    for other in (copy.deepcopy(compressor), pickle.loads(pickle.dumps(compressor))):
        assert other.compress(X) == streams


def test_compressors_need_a_bottleneck_with_tables(compressor):
    with pytest.raises(TypeError, match="HHyper"):
        FeatureCompressor(HHyper(8))
    with pytest.raises(RuntimeError, match="update"):
        FeatureCompressor(HFactorized(8))
    rate = HFactorized(8)
    rate.update()
    with pytest.raises(ValueError, match="8.*512"):
        ClipCompressor(compressor.backbone, rate, compressor.transform)


def test_batches_of_other_shapes_are_rejected(compressor, X):
    uint8 = torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8)
    for wrong in ([1.0], torch.rand(3, SIDE, SIDE), uint8):
        with pytest.raises(SourceError, match="found"):
            compressor(wrong)
    assert compressor.encode(X[:0]).shape == compressor(X[:0]).shape == (0, Z_DIM)
    assert compressor.compress(X[:0]) == [] and math.isnan(compressor.get_rate(X[:0]))


# --- data sets


def test_a_folder_is_compressed_with_its_classes(compressor, folder, tmp_path, capsys):
    report = compressor.compress_dataset(str(folder), tmp_path / "Z", labels=True)
    paths = sorted(folder.rglob("*.png"))
    Z, Y = compressor.decompress_dataset(tmp_path / "Z", labels=True)
    images = [compressor.transform(Image.open(path).convert("RGB")) for path in paths]
    np.testing.assert_array_equal(Z, compressor(torch.stack(images)))
    assert Y.tolist() == [path.relative_to(folder).parts[0] == "dog" for path in paths]
    with compressor.open(tmp_path / "Z") as file:
        assert file.header.meta["classes"] == ["cat", "dog"]
    assert report.n_source_bytes == sum(path.stat().st_size for path in paths)
    assert report.n_bytes == (tmp_path / "Z").stat().st_size
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith(f"Rate: {report.bits_per_example:.2f} bits/img | Encoding: ")
    assert f"{report.n_bytes:,}" in line and f"{report.n_source_bytes:,}" in line


@pytest.mark.parametrize(
    "labels",
    [
        [3, np.uint8(255)],
        [torch.tensor(70_000), True],
        [torch.tensor([1, 2], dtype=torch.int16)] * 2,
    ],
    ids=str,
)
def test_labels_of_any_integer_type_become_int64(compressor, X, tmp_path, labels):
    dataset, kwargs = list(zip(X, labels, strict=False)), {"batch_size": 1}
    compressor.compress_dataset(dataset, tmp_path / "Z", tmp_path / "Y", kwargs)
    _, Y = compressor.decompress_dataset(tmp_path / "Z", labels=True)
    assert Y.dtype == np.int64 and Y.tolist() == [np.asarray(y).tolist() for y in labels]
    np.testing.assert_array_equal(np.load(tmp_path / "Y"), Y)


OTHER_LABELS = [[None], [0.5], ["cat"], [2**63], [torch.tensor([1, 2]), 1]]


@pytest.mark.parametrize("labels", OTHER_LABELS, ids=str)
def test_other_labels_are_rejected_and_nothing_is_written(compressor, X, tmp_path, labels):
    dataset = list(zip(X, labels, strict=False))
    with pytest.raises(SourceError, match="labels"):
        compressor.compress_dataset(dataset, tmp_path / "Z", tmp_path / "Y")
    assert list(tmp_path.iterdir()) == []


class NoImages:
    """A data set whose images must not be read."""

    def __len__(self):
        return 1

    def __getitem__(self, i):
        raise AssertionError("an image was read before the output files were checked")


@pytest.mark.parametrize("format", ["container", "official"])
def test_files_that_cannot_be_written_are_found_before_any_work(compressor, tmp_path, format):
    (tmp_path / "folder").mkdir()
    for Z, Y, error in (
        ("Z", "nothing/Y", FileNotFoundError),
        ("Z", "folder", IsADirectoryError),
        ("nothing/Z", "Y", FileNotFoundError),
        ("folder", "Y", IsADirectoryError),
        ("Z", "Z", SameFileError),
    ):
        with pytest.raises(error):
            compressor.compress_dataset(NoImages(), tmp_path / Z, tmp_path / Y, format=format)
        assert list(tmp_path.iterdir()) == [tmp_path / "folder"]
