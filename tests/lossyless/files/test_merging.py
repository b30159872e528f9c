"""Compressed files: labels, names, headers, the first format version, merging."""

import json
import struct
import zlib
from pathlib import Path
from shutil import SameFileError

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.damage import damage
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
    CompressedFile,
    ContainerError,
    FeatureDataset,
    FeatureFile,
    Header,
    merge_files,
    write_features,
)

N = 100
# file names need not be ASCII, nor even valid text
NAMES = [f"dir/Bäume {i}.jpg" for i in range(N - 1)] + ["\udce9.png"]


def write_annotated(path: Path, codec, z, labels=None, names=None):
    return write_features([(z, labels, names)], path, codec, chunk_size=32, n_workers=1)


# --- labels and names


@pytest.mark.parametrize(
    "sizes, shape, dtype",
    [([N], (), np.int64), ([1] * N, (3,), np.float32), ([40, 0, 60], (), np.uint8)],
)
@pytest.mark.parametrize("is_named", [False, True])
def test_labels_and_names_stay_with_their_examples(
    path, codec, z, z_hat, sizes, shape, dtype, is_named
):
    labels = np.arange(N).reshape(N, *[1] * len(shape)) + np.zeros((N, *shape))
    labels = labels.astype(dtype)
    buffer = np.empty_like(labels)

    def batches():
        start = 0
        for part in z.split(sizes):
            part_labels = buffer[: len(part)]  # the next batch reuses their memory
            part_labels[...] = labels[start : start + len(part)]
            names = NAMES[start : start + len(part)]
            yield (part, part_labels, names) if is_named else (part, part_labels)
            start += len(part)

    written = write_features(batches(), path, codec, chunk_size=32, n_workers=1)
    with FeatureFile(path, codec) as file:
        assert torch.equal(file.read(), z_hat) and torch.equal(file[[40, 3]], z_hat[[40, 3]])
        assert file.labels().dtype == dtype and file.names == (NAMES if is_named else None)
        np.testing.assert_array_equal(file.labels(), labels)
    plain = write(path.with_name("other"), codec, z)
    overhead = len("true") - len("false") + len(',"has_names":true') * is_named
    assert written.n_bytes - written.n_annotation_bytes == plain.n_bytes + overhead
    assert plain.n_annotation_bytes == 0
    with FeatureDataset(path, codec, labels=True) as data:
        np.testing.assert_array_equal(data[7][1], labels[7])


def test_annotations_of_lost_examples_are_left_out(path, codec, z):
    write_annotated(path, codec, z, np.arange(N), NAMES)
    damage(path, share=0.4)  # in the second of four chunks
    with FeatureFile(path, codec, on_damage="skip") as file:
        assert file.missing.tolist() == list(range(32, 64))
        np.testing.assert_array_equal(file.labels(), file.indices)
        assert file.names == [NAMES[i] for i in file.indices]


def test_batches_without_the_annotations_of_others_are_errors(path, codec, z):
    labelled, named = (z, np.arange(N)), (z, None, NAMES)
    table = (z, np.zeros((N, 3)))
    for batches in ([labelled, z], [z, labelled], [(z, np.arange(N - 1))], [labelled, table]):
        with pytest.raises(ValueError, match="labels"):
            write_features(batches, path, codec, n_workers=1)
    for batches in ([named, z], [z, named], [(z, None, NAMES[:-1])]):
        with pytest.raises(ValueError, match="names"):
            write_features(batches, path, codec, n_workers=1)
    write(path, codec, z)
    with pytest.raises(ValueError, match="z.lsl: .*labels"):
        FeatureDataset(path, codec, labels=True)
    with pytest.raises(ValueError, match="100 examples.*99 labels"):
        FeatureDataset(path, codec, np.zeros(N - 1))


def test_labels_and_names_must_have_an_order_and_names_be_strings(path, codec, z):
    for names in ([*range(N)], {*NAMES}, [NAMES] * N, "a" * N, [Path(name) for name in NAMES]):
        with pytest.raises(ValueError, match="names"):
            write_annotated(path, codec, z, names=names)
    numbers = dict.fromkeys(range(N))
    for labels in (set(numbers), numbers, numbers.keys(), [{1}] * N):
        message = f"labels.*found {type(labels).__name__}"
        with pytest.raises(ValueError, match=message):
            write_annotated(path, codec, z, labels)
        assert not path.exists()
        write(path, codec, z)
        with pytest.raises(ValueError, match=message):
            FeatureDataset(path, codec, labels)
        path.unlink()


@pytest.mark.parametrize("columns", [["a"], [*range(N)], None])
def test_labels_of_pandas_are_values(path, codec, z, columns):
    """Column names and indices are ignored, whatever the shape."""
    values = np.arange(N * len(columns or "1")).reshape(N, -1)
    index = range(N, 0, -1)
    labels = pd.DataFrame(values, index, columns) if columns else pd.Series(values[:, 0], index)
    write_annotated(path, codec, z, labels)
    np.testing.assert_array_equal(CompressedFile(path).labels(), labels.to_numpy())
    with FeatureDataset(path, codec, labels) as data:
        np.testing.assert_array_equal(data[3][1], labels.to_numpy()[3])


# --- merging


def test_merging_keeps_all_examples_without_coding_again(tmp_path, path, codec, monkeypatch):
    parts = [draw_features(n, seed=n) for n in (70, 0, 5, 33)]
    paths = [tmp_path / str(i) for i in range(len(parts))]
    for i, (part, z) in enumerate(zip(paths, parts, strict=True)):
        write(part, codec, z, meta={"classes": ["a", "b"], "shard": i})
    with monkeypatch.context() as uncoded:
        uncoded.setattr(type(codec.coder()), "encode", None)
        assert merge_files(iter(paths), path) == 108
    assert torch.equal(read(path, codec), quantised(codec, torch.cat(parts)))
    assert CompressedFile(path).describe()["meta"] == {"classes": ["a", "b"]}


@pytest.mark.parametrize("part", ["labels", "names"])
def test_merging_keeps_annotations_that_all_files_have(tmp_path, path, codec, z, part):
    full, without = tmp_path / "full", tmp_path / "without"
    everything = {"labels": np.arange(N), "names": NAMES}
    write_annotated(full, codec, z, **everything)
    write_annotated(without, codec, z, **everything | {part: None})
    merge_files([full, full], path)
    with CompressedFile(path) as file:
        assert file.labels().tolist() == [*range(N)] * 2 and file.names == NAMES * 2
    with pytest.warns(UserWarning, match=f"without: .*{part}"):
        assert merge_files([full, without], path) == 2 * N
    assert (CompressedFile(path).labels() is None) == (part == "labels")
    assert (CompressedFile(path).names is None) == (part == "names")


def test_labels_of_different_shapes_cannot_be_merged(tmp_path, path, codec, z):
    first, empty, other = (tmp_path / name for name in ("first", "empty", "other"))
    write_annotated(first, codec, z, np.arange(N))
    write_annotated(empty, codec, z[:0], np.arange(0))
    write_annotated(other, codec, z, np.zeros((N, 3)))
    assert merge_files([first, empty, first], path) == 2 * N
    with pytest.raises(ContainerError, match=r"other: .*first.*\[3\]"):
        merge_files([empty, first, other], path)


def test_merging_never_overwrites_its_inputs(tmp_path, path, codec, z):
    other, link = tmp_path / "other", tmp_path / "link"
    for file in (path, other):
        write(file, codec, z)
    link.symlink_to(other)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    for out in (path, link):
        with pytest.raises(SameFileError, match=str(out)):
            merge_files([path, other], out)
    assert before == {file: file.read_bytes() for file in tmp_path.iterdir()}


def test_files_with_different_classes_cannot_be_merged(tmp_path, path, codec, z):
    first, unnamed, other = (tmp_path / name for name in ("first", "unnamed", "other"))
    write(first, codec, z, meta={"classes": ["a", "b"]})
    write(unnamed, codec, z)
    with pytest.warns(UserWarning, match="unnamed: .*classes"):
        merge_files([first, unnamed], path)
    assert CompressedFile(path).describe()["meta"] == {}
    path.unlink()
    for classes, i in ((["a", "c"], 1), (["a"], 1), (["a", "b", "c"], 2), (["b", "a"], 0)):
        write(other, codec, z, meta={"classes": classes})
        with pytest.raises(ContainerError, match=rf"other: .*first.* class {i}\b"):
            merge_files([first, other], path)
        assert not path.exists()


def test_other_models_and_damaged_files_cannot_be_merged(tmp_path, path, codec, z):
    first, other = tmp_path / "first", tmp_path / "other"
    write(first, codec, z)
    write(other, make_codec(seed=5), z)
    with pytest.raises(ContainerError, match="other: .*first.*entropy model"):
        merge_files([first, other], path)
    with pytest.raises(ValueError, match="no files"):
        merge_files([], path)
    damage(first)
    with pytest.raises(ContainerError, match="first: chunk"):
        merge_files([first], path)
    assert not path.exists()


# --- headers


def test_files_of_the_first_version_can_be_read(path, codec, z, z_hat):
    path.write_bytes(data := version_1(codec, z))
    for on_damage in ("raise", "skip"):
        with FeatureFile(path, codec, on_damage=on_damage) as file:
            assert torch.equal(file.read(), z_hat) and file.labels() is None
            assert not file.damaged and len(file.missing) == 0
    merge_files([path, path], merged := path.with_name("merged"))
    assert torch.equal(read(merged, codec), torch.cat([z_hat, z_hat]))
    for damaged in (data[:-200], data.replace(b"CHNK", b"CHNX", 1)):
        path.write_bytes(damaged)
        with pytest.raises(ContainerError, match="z.lsl: .*truncated"):
            FeatureFile(path, codec)
    with FeatureFile(path, codec, on_damage="skip") as file:
        assert file.missing.tolist() == list(range(32)) and torch.equal(file.read(), z_hat[32:])


def test_flags_of_later_releases_are_errors(codec):
    header = Header("factorized", codec.fingerprint(), (Z_DIM,)).to_bytes()
    text = header[17:-4].replace(b"{", b'{"has_times":true,', 1)
    data = struct.pack("<8sBII", header[:8], 2, len(text), 0) + text
    with pytest.raises(ContainerError, match="has_times"):
        CompressedFile(data + struct.pack("<I", zlib.crc32(data)))


def test_description(path, codec, z):
    written = write(path, codec, z, meta={"classes": ["cat"]})
    facts = json.loads(json.dumps(CompressedFile(path).describe()))
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
        "n_annotation_bytes": 0,
        "meta": {"classes": ["cat"]},
    }
