"""Feature files: labels, headers, the first version, merging."""

import io
import json
import struct
import zlib
from pathlib import Path

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
    read_labels,
    read_names,
    write_features,
)
from lossyless.files.scan import Layout

N = 100
# as file systems have them: not only ASCII, and not only text
NAMES = [f"dir/Bäume {i}.jpg" for i in range(N - 1)] + ["\udce9.png"]


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


@pytest.mark.parametrize("part", ["labels", "names"])
def test_merging_keeps_labels_and_names_if_all_files_have_them(tmp_path, path, codec, z, part):
    first, other, without = (tmp_path / name for name in ("first", "other", "without"))
    for file, labels, names in (
        (first, np.arange(N), NAMES),
        (other, np.arange(N), NAMES),
        (without, *((None, NAMES) if part == "labels" else (np.arange(N), None))),
    ):
        write_features([(z, labels, names)], file, codec, chunk_size=32, n_workers=1)
    merge_files([first, other], path)
    assert read_labels(path).tolist() == [*range(N)] * 2 and read_names(path) == NAMES * 2
    with pytest.warns(UserWarning, match=f"without: has no {part}"):
        merge_files([first, without], path)
    assert describe(path)["n_examples"] == 2 * N
    assert (read_labels(path) is None) == (part == "labels")
    assert (read_names(path) is None) == (part == "names")


@pytest.mark.parametrize("sizes", [[N], [40, 0, 60], [1] * N])
@pytest.mark.parametrize("labels", [None, np.arange(N)], ids=["unlabelled", "labelled"])
def test_names_lie_beside_their_examples(path, codec, z, z_hat, sizes, labels):
    ends = np.cumsum(sizes).tolist()
    parts = [slice(end - n, end) for end, n in zip(ends, sizes, strict=True)]
    batches = ((z[i], None if labels is None else labels[i], NAMES[i]) for i in parts)
    written = write_features(batches, path, codec, chunk_size=32, n_workers=1)
    with FeatureFile(path, codec) as file:
        assert file.names == NAMES and torch.equal(file.read(), z_hat)
        np.testing.assert_array_equal(file.labels(), labels)
    unnamed = path.with_name("unnamed")
    plain = write_features([z if labels is None else (z, labels)], unnamed, codec, chunk_size=32)
    assert read_names(unnamed) is None
    overhead = len(',"has_names":true')
    assert written.n_bytes - written.n_label_bytes == plain.n_bytes - plain.n_label_bytes + overhead
    data = bytearray(path.read_bytes())
    data[Layout(bytes(data)).chunks[1].start] ^= 1
    path.write_bytes(data)
    with FeatureFile(path, codec, on_damage="skip") as file:
        assert file.names == [NAMES[i] for i in file.indices] and len(file.names) == N - 32


def test_names_are_strings_in_an_order(path, codec, z):
    for names in (
        [*range(N)],
        {*NAMES},
        NAMES[:-1],
        [NAMES] * N,
        "a" * N,
        [Path(n) for n in NAMES],
    ):
        with pytest.raises(ValueError, match="names"):
            write_features([(z, None, names)], path, codec, n_workers=1)
    for batches in ([(z, None, NAMES), z], [z, (z, None, NAMES)]):
        with pytest.raises(ValueError, match="names"):
            write_features(batches, path, codec, n_workers=1)
    write_features([(z[:0], None, [])], path, codec)
    assert read_names(path) == []


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
    text = header[17:-4].replace(b"{", b'{"has_times":true,', 1)
    data = struct.pack("<8sBII", header[:8], 2, len(text), 0) + text
    with pytest.raises(ContainerError, match="has_times"):
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
        "has_names": False,
        "n_examples": N,
        "n_chunks": 4,
        "n_bytes": written.n_bytes,
        "meta": {"classes": ["cat"]},
    }
