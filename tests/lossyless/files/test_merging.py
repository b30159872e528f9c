"""Feature files: labels, headers, the first version, merging."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
import torch
from helpers.stored_features import (
    Z_DIM,
    draw_features,
    make_codec,
    quantised,
    read,
    version_1,
    write,
)

from lossyless.files import (
    ContainerError,
    FeatureDataset,
    FeatureFile,
    FileWriter,
    Header,
    describe,
    merge_files,
    write_features,
)
from lossyless.files.scan import Layout

N = 100


def test_merging_keeps_all_examples_and_codes_nothing_again(tmp_path, path, codec, monkeypatch):
    parts = [draw_features(n, seed=n) for n in (70, 0, 5, 33)]
    paths = [tmp_path / str(i) for i in range(len(parts))]
    for i, (part, z) in enumerate(zip(paths, parts, strict=True)):
        write(part, codec, z, meta={"classes": ["a", "b"], "shard": i})
    with monkeypatch.context() as uncoded:
        uncoded.setattr(type(codec.coder()), "encode", None)
        assert merge_files(paths, path) == 108
    assert torch.equal(read(path, codec), quantised(codec, torch.cat(parts)))
    assert describe(path)["meta"] == {"classes": ["a", "b"]}


def test_merging_overwrites_none_of_its_files(tmp_path, path, codec, z):
    other, link = tmp_path / "other", tmp_path / "link"
    for file in (path, other):
        write(file, codec, z)
    link.symlink_to(other)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    for out in (path, link):
        with pytest.raises(ContainerError, match=f"{out}: is one of the files to merge"):
            merge_files([path, other], out)
    assert before == {file: file.read_bytes() for file in tmp_path.iterdir()}


def test_files_of_other_classes_are_not_merged(tmp_path, path, codec, z):
    first, unnamed, other = (tmp_path / name for name in ("first", "unnamed", "other"))
    write(first, codec, z, meta={"classes": ["a", "b"]})
    write(unnamed, codec, z)
    for classes, i in ((["a", "c"], 1), (["a"], 1), (["a", "b", "c"], 2)):
        write(other, codec, z, meta={"classes": classes})
        with pytest.raises(ContainerError, match=f"other: cannot be .*first.* class {i} is"):
            merge_files([first, unnamed, other], path)
        assert not path.exists()
    merge_files([first, unnamed], path)
    assert describe(path)["meta"] == {}


@pytest.mark.parametrize(
    "sizes, shape, dtype",
    [([N], (), np.int64), ([1] * N, (3,), np.float32), ([40, 0, 60], (), np.uint8)],
)
def test_labels_lie_beside_their_examples(path, codec, z, z_hat, sizes, shape, dtype):
    labels = np.arange(N).reshape(N, *[1] * len(shape)) + np.zeros((N, *shape))
    labels = labels.astype(dtype)
    buffer = np.empty_like(labels)

    def batches():
        start = 0
        for part in z.split(sizes):
            part_labels = buffer[: len(part)]
            part_labels[...] = labels[start : start + len(part)]
            yield part, part_labels  # whose memory the next batch reuses
            start += len(part)

    written = write_features(batches(), path, codec, chunk_size=32, n_workers=1)
    with FeatureFile(path, codec) as file:
        assert torch.equal(file.read(), z_hat) and torch.equal(file[[40, 3]], z_hat[[40, 3]])
        found = file.labels()
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, labels)
    unlabelled = write(path.with_name("other"), codec, z)
    overhead = len("true") - len("false")
    assert written.n_bytes - written.n_label_bytes == unlabelled.n_bytes + overhead
    assert unlabelled.n_label_bytes == 0
    data = FeatureDataset(path, codec, labels=True)
    np.testing.assert_array_equal(data[7][1], labels[7])


def test_a_batch_without_its_labels_is_refused(path, codec, z):
    for batches in ([(z, np.arange(N)), z], [z, (z, np.arange(N))], [(z, np.arange(N - 1))]):
        with pytest.raises(ValueError, match="labels"):
            write_features(batches, path, codec, n_workers=1)
    write(path, codec, z)
    with pytest.raises(ValueError, match="z.lsl: holds no labels"):
        FeatureDataset(path, codec, labels=True)
    with pytest.raises(ValueError, match="100 examples, but 99 labels"):
        FeatureDataset(path, codec, np.zeros(N - 1))


def test_merging_keeps_labels_if_all_files_have_them(tmp_path, path, codec, z):
    first, other, unlabelled = (tmp_path / name for name in ("first", "other", "unlabelled"))
    for file in (first, other):
        write_features([(z, np.arange(N))], file, codec, chunk_size=32, n_workers=1)
    write(unlabelled, codec, z)
    merge_files([first, other], path)
    with FeatureFile(path, codec) as file:
        assert file.labels().tolist() == [*range(N)] * 2
    with pytest.warns(UserWarning, match="unlabelled: has no labels"):
        merge_files([first, unlabelled], path)
    with FeatureFile(path, codec) as file:
        assert file.labels() is None and len(file) == 2 * N


def test_files_of_the_first_version_are_read(path, codec, z, z_hat):
    path.write_bytes(data := version_1(codec, z))
    for on_damage in ("raise", "skip"):
        with FeatureFile(path, codec, on_damage=on_damage) as file:
            assert torch.equal(file.read(), z_hat) and file.labels() is None
            assert not file.damaged and len(file.missing) == 0
    merge_files([path, path], merged := path.with_name("merged"))
    with FeatureFile(merged, codec) as file:
        assert torch.equal(file.read(), torch.cat([z_hat, z_hat]))
    for damaged in (data[:-200], data.replace(b"CHNK", b"CHNX", 1)):
        path.write_bytes(damaged)
        with pytest.raises(ContainerError, match="z.lsl: is cut or damaged"):
            FeatureFile(path, codec)
    with FeatureFile(path, codec, on_damage="skip") as file:
        assert file.missing.tolist() == list(range(32)) and torch.equal(file.read(), z_hat[32:])


def test_headers_hold_only_json(path, codec, z):
    for meta in ({"a": float("nan")}, {"a": {1}}, {"a": "x" * (1 << 26)}):
        with pytest.raises(ContainerError, match="header"):
            write(path, codec, z, meta=meta)
        assert not path.exists()


def test_flags_of_later_releases_are_refused(codec):
    header = Header("factorized", codec.fingerprint(), (Z_DIM,)).to_bytes()
    text = header[17:-4].replace(b"{", b'{"has_names":true,', 1)
    data = struct.pack("<8sBII", header[:8], 2, len(text), 0) + text
    with pytest.raises(ContainerError, match="has_names"):
        Layout(data + struct.pack("<I", zlib.crc32(data)))


def test_chunks_fit_their_header():
    writer = FileWriter(io.BytesIO(), Header("a", "b", (3,)))
    for payload, n_examples, labels in ((b"a", 0, b""), (b"a", 2**32, b""), (b"a", 1, b"labels")):
        with pytest.raises(ContainerError, match="chunk"):
            writer.add(payload, n_examples, labels)


def test_neither_other_models_nor_damage_are_merged(tmp_path, path, codec, z):
    first, other = tmp_path / "first", tmp_path / "other"
    write(first, codec, z)
    write(other, make_codec(seed=5), z)
    with pytest.raises(ContainerError, match="other: cannot be merged with .*first.*entropy model"):
        merge_files([first, other], path)
    with pytest.raises(ValueError, match="no files"):
        merge_files([], path)
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 1
    first.write_bytes(data)
    with pytest.raises(ContainerError, match="first: chunk"):
        merge_files([first], path)
    assert not path.exists()


def test_description(path, codec, z):
    written = write(path, codec, z, meta={"classes": ["cat"]})
    facts = json.loads(json.dumps(describe(path)))
    assert facts.pop("bits_per_example") == 8 * written.n_bytes / N
    assert facts == {
        "path": str(path),
        "codec": "factorized",
        "fingerprint": codec.fingerprint(),
        "shape": [Z_DIM],
        "has_labels": False,
        "n_examples": N,
        "n_chunks": 4,
        "n_bytes": written.n_bytes,
        "meta": {"classes": ["cat"]},
    }
