"""FeatureCompressor: round trips of features and labels; damaged files."""

import io
import warnings

import numpy as np
import pytest
import torch
from helpers.damage import damage
from helpers.stored_features import version_1
from helpers.tiny_clip import Z_DIM

from lossyless.files import FeatureDataset
from lossyless.hub import SourceError


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_features_of_any_precision_are_compressed(decoder, z, tmp_path, dtype):
    np.save(tmp_path / "raw.npy", z.numpy().astype(dtype))
    Z, labels = np.load(tmp_path / "raw.npy", mmap_mode="r"), np.arange(500, dtype=np.uint16)
    decoder.compress_features(Z, tmp_path / "Z", labels)
    decoded, Y = decoder.decompress_dataset(tmp_path / "Z", labels=True)
    expected = decoder.rate.dequantise(decoder.rate.quantise(torch.from_numpy(Z.copy()).float()))
    np.testing.assert_array_equal(decoded, expected)
    np.testing.assert_array_equal(Y, labels)
    assert decoded.dtype == np.float32 and Y.dtype == np.int64


def test_features_that_do_not_fit_are_rejected(decoder, z, tmp_path):
    with pytest.raises(SourceError, match=r"\[N, 512\].*\[500, 3\]"):
        decoder.compress_features(z[:, :3], tmp_path / "Z")
    for labels in ([1, 2, 3], torch.tensor(5), [0.5] * 500, set(range(500)), iter(range(500))):
        with pytest.raises(SourceError, match="labels") as caught:
            decoder.compress_features(z, tmp_path / "Z", labels, tmp_path / "Y")
        assert len(str(caught.value)) < 200
    texts, objects, ragged = z.numpy().astype(str), np.full(z.shape, object()), [[1.0], [1.0, 2.0]]
    for features in (z * np.nan, z + 1j, z[0], z[None], texts, objects, ragged, None):
        with pytest.raises((ValueError, TypeError)):
            decoder.compress_features(features, tmp_path / "Z")
    with pytest.raises(SourceError, match="0 labels"):
        decoder.compress_features(z, tmp_path / "Z", label_file=tmp_path / "Y")
    with pytest.raises(ValueError, match="format: .*'zip'"):
        decoder.compress_features(z, tmp_path / "Z", format="zip")
    assert list(tmp_path.iterdir()) == []


def test_random_access(decoder, z, tmp_path):
    decoder.compress_features(z, tmp_path / "Z", range(500))
    Z = torch.from_numpy(decoder.decompress_dataset(tmp_path / "Z"))
    with decoder.open(tmp_path / "Z") as file:
        assert torch.equal(file[[5, 499, 5]], Z[[5, 499, 5]])
    dataset = FeatureDataset(tmp_path / "Z", decoder.rate, labels=np.arange(500))
    example, label = dataset[123]
    assert torch.equal(example, Z[123]) and label == 123
    decoder.compress_features(z, tmp_path / "official", format="official")
    with pytest.raises(SourceError, match="official: .*random access"):
        decoder.open(tmp_path / "official")


def test_empty_features_can_be_compressed(decoder, tmp_path, capsys):
    decoder.compress_features(torch.empty(0, Z_DIM), tmp_path / "Z")
    assert capsys.readouterr().out == "Encoding: 0 img\n"
    assert decoder.decompress_dataset(tmp_path / "Z").shape == (0, Z_DIM)


# --- labels


def test_labels_stored_in_the_file_take_precedence(decoder, z, tmp_path):
    Z, Y = tmp_path / "Z", tmp_path / "Y.npy"
    report = decoder.compress_features(z, Z, range(500), Y)
    np.testing.assert_array_equal(np.load(Y), np.arange(500))
    np.save(Y, np.arange(500)[::-1])
    assert decoder.decompress_dataset(Z, Y)[1].tolist() == list(range(500))
    decoder.decompress_to_npy(Z, tmp_path / "Z.npy", labels_out=tmp_path / "out.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "Z.npy"), decoder.decompress_dataset(Z))
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), np.arange(500))
    plain = decoder.compress_features(z, Z)
    assert report.bits_per_example == pytest.approx(plain.bits_per_example, abs=1)
    with pytest.raises(SourceError, match="Z: .*without labels"):
        decoder.decompress_dataset(Z, Y)


def test_official_files_take_labels_from_a_npy_file(decoder, z, tmp_path):
    Z, Y = tmp_path / "Z", tmp_path / "Y.npy"
    with pytest.raises(SourceError, match="Z: .*official"):
        decoder.compress_features(z, Z, range(500), format="official")
    decoder.compress_features(z, Z, range(500), Y, format="official")
    assert decoder.decompress_dataset(Z, Y)[1].tolist() == list(range(500))
    np.save(Y, np.arange(500, dtype=np.uint16))  # the type that the paper's code uses
    assert decoder.decompress_dataset(Z, Y)[1].dtype == np.int64
    with pytest.raises(SourceError, match="Z: .*label_file="):
        decoder.decompress_dataset(Z, labels=True)
    for wrong in (np.arange(499), np.zeros(500)):
        np.save(Y, wrong)
        with pytest.raises(SourceError, match=str(Y)):
            decoder.decompress_dataset(Z, Y)
    np.savez(archive := io.BytesIO(), np.arange(500))
    np.save(pickled := io.BytesIO(), np.array(500 * [{}]), allow_pickle=True)
    zipped, truncated = archive.getvalue(), Y.read_bytes()[:-8]
    for content in (truncated, pickled.getvalue(), zipped, zipped[:99], b"PK\3\4", b""):
        Y.write_bytes(content)
        with pytest.raises(SourceError, match=str(Y)):
            decoder.decompress_to_npy(Z, tmp_path / "Z.npy", Y, tmp_path / "Y2.npy")
    assert sorted(tmp_path.iterdir()) == [Y, Z]


def test_files_of_the_first_version_take_labels_from_a_npy_file(decoder, z, tmp_path):
    (tmp_path / "Z").write_bytes(version_1(decoder.rate, z, chunk_size=200))
    np.save(tmp_path / "Y.npy", np.arange(500))
    with pytest.raises(SourceError, match="Z: .*label_file="):
        decoder.decompress_dataset(tmp_path / "Z", labels=True)
    Z, Y = decoder.decompress_dataset(tmp_path / "Z", tmp_path / "Y.npy")
    np.testing.assert_array_equal(Z, decoder.rate.dequantise(decoder.rate.quantise(z)))
    assert Y.tolist() == list(range(500))
    damage(tmp_path / "Z")
    with pytest.warns(UserWarning, match="Z: .* 200 to 399"):
        skipped, Y = decoder.decompress_dataset(
            tmp_path / "Z", tmp_path / "Y.npy", on_damage="skip"
        )
    assert Y.tolist() == [*range(200), *range(400, 500)]
    np.testing.assert_array_equal(skipped, Z[Y])


# --- damage


def test_skipping_is_silent_without_damage(decoder, z, tmp_path):
    decoder.compress_features(z, tmp_path / "Z")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(decoder.decompress_dataset(tmp_path / "Z", on_damage="skip")) == 500
    decoder.compress_features(z, tmp_path / "Z", format="official")
    with pytest.raises(SourceError, match="Z: .*official"):
        decoder.decompress_dataset(tmp_path / "Z", on_damage="skip")
