"""The compressors of the hub, with networks of random weights."""

import copy
import errno
import math
import os
import pickle
import signal
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_clip import SIDE, Z_DIM, save_bottleneck
from PIL import Image
from torch.utils.data import TensorDataset

from lossyless.container import ContainerError
from lossyless.feature_files import FeatureDataset
from lossyless.hub import (
    FeatureCompressor,
    SourceError,
    clip_compressor,
    feature_compressor,
)
from lossyless.hub.labels import labels_checksum
from lossyless.hub.official_format import is_official
from lossyless.rates import HFactorized, HHyper

N = 10


# --------------------------------------------------------------------------- one batch of images


@torch.no_grad()
def test_what_arrives_is_the_same_by_every_way(compressor, X, tmp_path):
    z_hat = compressor(X)
    assert z_hat.shape == (N, Z_DIM) and z_hat.dtype == torch.float32
    streams = compressor.compress(X)
    assert len(streams) == N and streams == compressor(X, is_compress=True)
    assert torch.equal(compressor.decompress(streams), z_hat)
    for format in ("container", "official"):
        compressor.compress_dataset(TensorDataset(X), tmp_path / "Z.bin", format=format)
        assert is_official(tmp_path / "Z.bin") == (format == "official")
        decoded = compressor.decompress_dataset(tmp_path / "Z.bin")
        np.testing.assert_array_equal(decoded, z_hat.numpy())


def test_features_are_those_of_clip_within_half_a_cell(compressor, X):
    z = compressor.encode(X)
    torch.testing.assert_close(z, compressor.tower(X))
    half_cell = 0.5 * (-compressor.rate.scaling).exp()
    assert ((compressor(X) - z).abs() <= half_cell + 1e-4).all()


def test_an_image_is_coded_alone(compressor, X):
    """Its bytes do not depend on the images beside it."""
    assert [s for x in X for s in compressor.compress(x[None])] == compressor.compress(X)


def test_coded_bits_are_the_theoretical_rate(compressor, X, z, tmp_path):
    rates = compressor.theoretical_rate(X)
    assert rates.shape == (N,) and (rates > 0).all()
    coded = torch.tensor([8.0 * len(stream) for stream in compressor.compress(X)])
    # a stream of its own has a tail of up to 96 bits; official tables cut tails
    assert (coded > 0.97 * rates - 8).all() and (coded < 1.05 * rates + 96).all()
    assert compressor.get_rate(X) == coded.double().mean().item()


def test_nothing_is_trained(compressor, X):
    z_hat = compressor(X)
    assert not any(p.requires_grad for p in compressor.parameters())
    assert not any(module.training for module in compressor.train().modules())
    assert torch.equal(compressor(X), z_hat) and not z_hat.requires_grad


def test_precision_follows_the_device_only(compressor, X):
    z_hat = compressor(X)
    for converted in (compressor.half(), compressor.to(torch.float64), compressor.to("cpu")):
        assert {p.dtype for p in converted.parameters()} == {torch.float32}
        assert torch.equal(converted(X), z_hat)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_bytes_of_a_gpu_decode_to_the_same_features_on_a_cpu(weights, X, tmp_path):
    compressor, _ = clip_compressor("b005", device="cuda", **weights)
    assert compressor.tower.conv1.weight.dtype == torch.float16
    compressor.compress_dataset(TensorDataset(X), tmp_path / "Z.bin")
    on_gpu = compressor(X)
    assert on_gpu.is_cuda
    z_in = compressor.process_z_in(compressor.encode(X))
    assert torch.equal(compressor.process_z_out(compressor.entropy_bottleneck(z_in)[0]), on_gpu)
    compressor.to("cpu")
    assert {p.dtype for p in compressor.parameters()} == {torch.float32}
    decoded = compressor.decompress_dataset(tmp_path / "Z.bin", is_cpu=False)
    np.testing.assert_array_equal(decoded, on_gpu.cpu().numpy())


def test_copies_and_pickles_work_alike(compressor, X):
    streams = compressor.compress(X)
    for other in (copy.deepcopy(compressor), pickle.loads(pickle.dumps(compressor))):
        assert other.compress(X) == streams


def test_global_random_state_is_left_alone(weights, X, tmp_path):
    state = torch.get_rng_state()
    compressor, _ = clip_compressor(device="cpu", **weights)
    compressor.compress_dataset(TensorDataset(X), tmp_path / "Z.bin")
    assert torch.equal(torch.get_rng_state(), state)


def test_only_bottlenecks_with_tables_make_a_compressor():
    with pytest.raises(TypeError, match="expected a rate HFactorized, found HHyper"):
        FeatureCompressor(HHyper(8))
    with pytest.raises(RuntimeError, match="update"):
        FeatureCompressor(HFactorized(8))


# ------------------------------------------------------------------------------------- data sets


@pytest.mark.parametrize("n_workers", [0, 2])
def test_batches_and_workers_change_nothing(compressor, X, tmp_path, n_workers):
    dataset = list(zip(X, range(N), strict=True))
    kwargs = {"batch_size": 3, "num_workers": n_workers}
    compressor.compress_dataset(dataset, tmp_path / "Z", tmp_path / "Y", kwargs_dataloader=kwargs)
    Z, Y = compressor.decompress_dataset(tmp_path / "Z", tmp_path / "Y")
    np.testing.assert_allclose(Z, compressor(X).numpy(), atol=0.4)  # a cell: rounding may flip
    assert Y.tolist() == list(range(N))


@pytest.mark.parametrize(
    "labels",
    [
        [3, -1],
        [np.uint8(255), np.uint8(0)],
        [np.int32(-7), np.uint64(2**63 - 1)],
        [torch.tensor(70_000), True],
        [torch.tensor([1, 2], dtype=torch.int16)] * 2,
    ],
    ids=str,
)
@pytest.mark.parametrize("batch_size", [1, 2])
def test_labels_of_any_integer_type_become_int64(compressor, X, tmp_path, labels, batch_size):
    dataset = list(zip(X, labels, strict=False))
    kwargs = {"batch_size": batch_size}
    compressor.compress_dataset(dataset, tmp_path / "Z", tmp_path / "Y", kwargs)
    _, Y = compressor.decompress_dataset(tmp_path / "Z", label_file=tmp_path / "Y")
    assert Y.dtype == np.int64
    assert Y.tolist() == [np.asarray(y).tolist() for y in labels]


def test_label_files_of_other_types_are_read(decoder, z, tmp_path):
    """The paper's code wrote uint16."""
    decoder.compress_features(z, tmp_path / "Z", format="official")
    np.save(tmp_path / "Y.npy", np.arange(500, dtype=np.uint16))
    _, Y = decoder.decompress_dataset(tmp_path / "Z", tmp_path / "Y.npy")
    assert Y.dtype == np.int64 and Y.tolist() == list(range(500))


@pytest.mark.parametrize("label", [None, 0.5, "cat"])
def test_other_labels_are_refused_before_anything_is_written(compressor, X, tmp_path, label):
    with pytest.raises(SourceError, match="expected integer labels.*label_file"):
        compressor.compress_dataset([(X[0], label)], tmp_path / "Z", tmp_path / "Y")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ([torch.tensor([1, 2]), torch.tensor(1)], "one shape, found .*2"),
        ([np.uint64(2**63 + 1), np.int64(-1)], "within int64, found 9223372036854775809"),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 2])
def test_labels_that_do_not_fit_are_refused(compressor, X, tmp_path, labels, problem, batch_size):
    dataset = list(zip(X, labels, strict=False))
    with pytest.raises(SourceError, match=problem):
        compressor.compress_dataset(
            dataset, tmp_path / "Z", tmp_path / "Y", {"batch_size": batch_size}
        )
    assert list(tmp_path.iterdir()) == []


def test_no_images_are_no_features(compressor, X):
    assert compressor.encode(X[:0]).shape == compressor(X[:0]).shape == (0, Z_DIM)
    assert compressor.compress(X[:0]) == [] and compressor.theoretical_rate(X[:0]).shape == (0,)
    assert math.isnan(compressor.get_rate(X[:0]))


def test_a_stream_is_no_list_of_streams(compressor, X):
    (stream,) = compressor.compress(X[:1])
    with pytest.raises(TypeError, match="list of streams, found bytes"):
        compressor.decompress(stream)


def test_empty_data_sets_are_data_sets(compressor, tmp_path):
    compressor.compress_dataset([], tmp_path / "Z", tmp_path / "Y")
    Z, Y = compressor.decompress_dataset(tmp_path / "Z", tmp_path / "Y")
    assert Z.shape == (0, Z_DIM) and Y.shape == (0,)


# --------------------------------------------------------------------------------------- folders


def sixteen_bits(path: Path) -> np.ndarray:
    """An image of 16 bits a pixel; what it is in 8 bits."""
    levels = np.linspace(0, 65535, SIDE * SIDE).astype(np.uint16).reshape(SIDE, SIDE)
    Image.fromarray(levels).save(path)
    return np.round(levels / 257).astype(np.uint8)


@pytest.mark.parametrize(
    "wrong", [[1.0], torch.rand(3, SIDE, SIDE), torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8)]
)
def test_batches_of_other_shapes_are_named(compressor, wrong):
    with pytest.raises(SourceError, match="made by `transform`, found"):
        compressor(wrong)


def test_a_folder_is_read_in_sorted_order(compressor, folder, tmp_path, capsys):
    report = compressor.compress_dataset(str(folder), tmp_path / "Z", tmp_path / "Y")
    paths = sorted(folder.rglob("*.png"))
    pictures = [Image.open(path).convert("RGB") for path in paths]
    X = torch.stack([compressor.transform(picture) for picture in pictures])
    Z, Y = compressor.decompress_dataset(tmp_path / "Z", tmp_path / "Y")
    np.testing.assert_array_equal(Z, compressor(X).numpy())
    assert Y.tolist() == [path.relative_to(folder).parts[0] == "dog" for path in paths]
    assert Y.dtype == np.int64

    assert report.n_source_bytes == sum(path.stat().st_size for path in paths)
    assert report.n_bytes == (tmp_path / "Z").stat().st_size
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith(f"Rate: {report.bits_per_example:.2f} bits/img | Encoding: ")
    assert f"{N} img: {report.n_bytes:,} bytes for {report.n_source_bytes:,} of image f" in line
    with compressor.open(tmp_path / "Z") as file:
        assert file.header.meta["classes"] == ["cat", "dog"]


# -------------------------------------------------------------------------------------- features


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_features_are_compressed_as_they_are(decoder, z, tmp_path, dtype):
    Z = z.numpy().astype(dtype)
    labels = np.arange(len(Z), dtype=np.uint16)
    decoder.compress_features(Z, tmp_path / "Z", labels, tmp_path / "Y")
    decoded, Y = decoder.decompress_dataset(tmp_path / "Z", tmp_path / "Y")
    expected = decoder.rate.dequantise(decoder.rate.quantise(torch.from_numpy(Z).float()))
    np.testing.assert_array_equal(decoded, expected.numpy())
    np.testing.assert_array_equal(Y, labels)
    assert Y.dtype == np.int64


def test_a_memory_map_is_compressed(decoder, z, tmp_path):
    np.save(tmp_path / "raw.npy", z.numpy())
    decoder.compress_features(z, tmp_path / "a")
    decoder.compress_features(np.load(tmp_path / "raw.npy", mmap_mode="r"), tmp_path / "b")
    decoded = [decoder.decompress_dataset(tmp_path / name) for name in "ab"]
    np.testing.assert_array_equal(*decoded)


def test_features_that_do_not_fit_are_refused(decoder, z, tmp_path):
    with pytest.raises(SourceError, match=r"expected features \[N, 512\], found \[500, 3\]"):
        decoder.compress_features(z[:, :3], tmp_path / "Z")
    with pytest.raises(SourceError, match="3 labels for 500"):
        decoder.compress_features(z, tmp_path / "Z", [1, 2, 3], tmp_path / "Y")
    for label in (5, np.array(5), torch.tensor(5)):
        with pytest.raises(SourceError, match=r"expected labels \[N, ...\]"):
            decoder.compress_features(z, tmp_path / "Z", label, tmp_path / "Y")
    with pytest.raises(SourceError, match="go together"):
        decoder.compress_features(z, tmp_path / "Z", labels=[1] * 500)
    with pytest.raises(ValueError, match="format: .*'zip'"):
        decoder.compress_features(z, tmp_path / "Z", format="zip")
    assert list(tmp_path.iterdir()) == []


def test_random_access(decoder, z, tmp_path):
    decoder.compress_features(z, tmp_path / "Z")
    Z = torch.from_numpy(decoder.decompress_dataset(tmp_path / "Z"))
    with decoder.open(tmp_path / "Z") as file:
        assert len(file) == 500
        assert torch.equal(file[17], Z[17]) and torch.equal(file[-1], Z[-1])
        assert torch.equal(file[10:30:7], Z[10:30:7])
        assert torch.equal(file[[5, 499, 5]], Z[[5, 499, 5]])
    dataset = FeatureDataset(tmp_path / "Z", decoder.rate, labels=np.arange(500))
    example, label = dataset[123]
    assert torch.equal(example, Z[123]) and label == 123
    decoder.compress_features(z, tmp_path / "official", format="official")
    with pytest.raises(SourceError, match="official format.*decompress_dataset"):
        decoder.open(tmp_path / "official")


# --------------------------------------------------------------------------------- what may break


def test_labels_of_another_file_are_refused(decoder, z, tmp_path):
    decoder.compress_features(z, tmp_path / "Z", range(500), tmp_path / "Y")
    np.save(tmp_path / "fewer.npy", np.arange(499))
    with pytest.raises(SourceError, match=r"fewer\.npy: has 499 labels.*holds 500"):
        decoder.decompress_dataset(tmp_path / "Z", tmp_path / "fewer.npy")
    cut = tmp_path / "cut.npy"
    cut.write_bytes((tmp_path / "Y").read_bytes()[:-8])
    with pytest.raises(SourceError, match=r"cut\.npy: is not a complete"):
        decoder.decompress_dataset(tmp_path / "Z", cut)
    np.save(tmp_path / "floats.npy", np.zeros(500))
    with pytest.raises(SourceError, match=r"floats\.npy: expected.*integer"):
        decoder.decompress_dataset(tmp_path / "Z", tmp_path / "floats.npy")


def test_labels_and_features_of_different_data_sets_are_told_apart(decoder, z, tmp_path):
    Z, Y, other = tmp_path / "Z", tmp_path / "Y", tmp_path / "other"
    decoder.compress_features(z, Z, range(500), Y, is_info=False)
    decoder.compress_features(z, tmp_path / "Z2", range(1, 501), other, is_info=False)
    with pytest.raises(SourceError, match="other: are not the labels.*their checksum differs"):
        decoder.decompress_dataset(Z, other)
    with pytest.raises(SourceError, match="checksum differs"):
        decoder.decompress_to_npy(Z, tmp_path / "Z.npy", other, tmp_path / "Y.npy")
    assert not (tmp_path / "Z.npy").exists() and not (tmp_path / "Y.npy").exists()
    decoder.compress_features(z.flip(0), Z, is_info=False)  # in place of the file with labels
    with pytest.raises(SourceError, match="Y: belongs to another file: .*without labels"):
        decoder.decompress_dataset(Z, Y)


def test_checksums_of_labels_tell_types_shapes_and_order():
    labels = np.arange(6)
    others = [labels.astype(np.int32), labels[::-1], labels.reshape(3, 2), labels[:5], labels + 1]
    assert len({labels_checksum(other) for other in [labels, *others]}) == 6
    assert labels_checksum(labels) == labels_checksum(labels.astype(">i8"))
    assert labels_checksum(labels) == labels_checksum(np.repeat(labels, 2)[::2])


def test_a_full_disk_is_named(decoder, z, tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError) as caught:
            decoder.compress_features(
                z[:2], tmp_path / "Z", np.zeros((2, 50_000), np.int64), tmp_path / "Y"
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.errno == errno.EFBIG and str(tmp_path / "Y") in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["Z", "Y", "link"])
def test_what_is_decompressed_overwrites_nothing(decoder, z, tmp_path, name):
    decoder.compress_features(z, tmp_path / "Z", range(500), tmp_path / "Y")
    (tmp_path / "link").symlink_to(tmp_path / "Y")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for out, labels_out in ((name, "new"), ("new", name), ("new", "new")):
        with pytest.raises(SourceError, match="overwritten|two results"):
            decoder.decompress_to_npy(
                tmp_path / "Z", tmp_path / out, tmp_path / "Y", tmp_path / labels_out
            )
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}


def test_figures_without_a_meaning_are_left_out(decoder, tmp_path, capsys):
    z = torch.zeros(2 * 4096, Z_DIM)
    decoder.compress_features(z[:0], tmp_path / "Z")
    assert capsys.readouterr().out == "Encoding: 0 img\n"
    decoder.compress_features(z, tmp_path / "Z")
    damage(tmp_path / "Z", 0.8)
    capsys.readouterr()
    with pytest.warns(UserWarning, match="is damaged"):
        decoder.decompress_dataset(tmp_path / "Z", on_damage="skip")
    line = capsys.readouterr().out
    assert line.startswith("Decoding: ") and "bits/img" not in line


class NoImages:
    """A data set that must not be looked into."""

    def __len__(self):
        return 1

    def __getitem__(self, i):
        raise AssertionError("read before it was known whether files can be written")


@pytest.mark.parametrize("format", ["container", "official"])
def test_files_that_cannot_be_written_are_known_before_any_work(compressor, tmp_path, format):
    (tmp_path / "folder").mkdir()
    for Z, Y, error in (
        (tmp_path / "Z", tmp_path / "nothing" / "Y", FileNotFoundError),
        (tmp_path / "Z", tmp_path / "folder", IsADirectoryError),
        (tmp_path / "nothing" / "Z", tmp_path / "Y", FileNotFoundError),
        (tmp_path / "folder", tmp_path / "Y", IsADirectoryError),
        (tmp_path / "Z", tmp_path / "Z", SourceError),
    ):
        with pytest.raises(error):
            compressor.compress_dataset(NoImages(), Z, Y, format=format)
        assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


@pytest.mark.parametrize("format", ["container", "official"])
def test_labels_are_there_before_their_features(decoder, z, tmp_path, monkeypatch, format):
    names, replace = [], os.replace

    def recording(source, target):
        names.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", recording)
    decoder.compress_features(z, tmp_path / "Z", range(500), tmp_path / "Y", format=format)
    assert names == ["Y", "Z"]


def damage(path: Path, share: float) -> None:
    """Flip a bit at a share of the file."""
    data = bytearray(path.read_bytes())
    data[int(share * len(data))] ^= 1
    path.write_bytes(data)


def test_damage_is_an_error_or_skipped_with_its_labels(decoder, tmp_path):
    n = 3 * 4096
    z = torch.randn(n, Z_DIM, generator=torch.Generator().manual_seed(0))
    decoder.compress_features(z, tmp_path / "Z", range(n), tmp_path / "Y")
    whole = decoder.decompress_dataset(tmp_path / "Z")
    damage(tmp_path / "Z", 0.5)
    with pytest.raises(ContainerError, match="chunk 1.*checksum"):
        decoder.decompress_dataset(tmp_path / "Z", tmp_path / "Y")
    with pytest.warns(UserWarning, match="4096 examples are lost and left out: 4096-8191"):
        Z, Y = decoder.decompress_dataset(tmp_path / "Z", tmp_path / "Y", on_damage="skip")
    assert Y.tolist() == [*range(4096), *range(8192, n)]
    np.testing.assert_array_equal(Z, whole[Y])


def test_a_cut_file_gives_what_is_left(decoder, tmp_path):
    n = 4096 + 100
    z = torch.randn(n, Z_DIM, generator=torch.Generator().manual_seed(0))
    decoder.compress_features(z, tmp_path / "Z", range(n), tmp_path / "Y")
    whole = decoder.decompress_dataset(tmp_path / "Z")
    data = (tmp_path / "Z").read_bytes()
    (tmp_path / "Z").write_bytes(data[: len(data) - 2000])
    with pytest.warns(UserWarning, match="100 examples are lost and left out: 4096-4195"):
        Z, Y = decoder.decompress_dataset(tmp_path / "Z", tmp_path / "Y", on_damage="skip")
    np.testing.assert_array_equal(Z, whole[:4096])
    assert Y.tolist() == list(range(4096))
    with pytest.warns(UserWarning, match="is damaged"):  # nobody knows how many there were
        assert len(decoder.decompress_dataset(tmp_path / "Z", on_damage="skip")) == 4096


def test_skipping_is_silent_when_nothing_is_lost(decoder, z, tmp_path):
    decoder.compress_features(z, tmp_path / "Z")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(decoder.decompress_dataset(tmp_path / "Z", on_damage="skip")) == 500


def test_official_files_cannot_be_read_in_part(decoder, z, tmp_path):
    decoder.compress_features(z, tmp_path / "Z", format="official")
    with pytest.raises(SourceError, match="no checksums"):
        decoder.decompress_dataset(tmp_path / "Z", on_damage="skip")


def test_the_file_of_another_bottleneck_is_refused(decoder, z, tmp_path):
    other = feature_compressor(pretrained_path=save_bottleneck(tmp_path / "other.pt", seed=1))
    decoder.compress_features(z, tmp_path / "Z")
    with pytest.raises(ContainerError, match="entropy model"):
        other.decompress_dataset(tmp_path / "Z")
