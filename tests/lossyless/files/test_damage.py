"""Damaged files raise an error that names the damage, or yield exactly the intact examples.

Random damage: tests/utils/fault_drill.
"""

import dataclasses
import io
import os
import random

import numpy as np
import pytest
import torch
from helpers.damage import flip_bit
from helpers.stored_features import draw_features, read, write

from lossyless.coding.payloads import CodingError
from lossyless.files import CompressedFile, ContainerError, FeatureFile, FileWriter, write_features

N, CHUNK_SIZE = 100, 16


@pytest.fixture(scope="module")
def intact(codec):
    """The bytes of a file."""
    buffer = io.BytesIO()
    write(buffer, codec, draw_features(N), chunk_size=CHUNK_SIZE)
    return buffer.getvalue()


def spans(data: bytes) -> list[slice]:
    """Byte range of each chunk."""
    return [slice(chunk.start - 32, chunk.end) for chunk in CompressedFile(data).heads]


def flipped(data: bytes, chunks: list[int]) -> bytes:
    """The file with one flipped bit in each of these chunks."""
    for chunk in chunks:
        data = flip_bit(data, spans(data)[chunk].stop - 1)
    return data


@pytest.mark.parametrize("lost", [[0], [6], [1, 2, 5], list(range(7))])
def test_intact_chunks_are_found_and_missing_examples_named(path, codec, intact, z_hat, lost):
    path.write_bytes(flipped(intact, lost))
    expected = np.concatenate([np.arange(N)[CHUNK_SIZE * i :][:CHUNK_SIZE] for i in lost])
    with FeatureFile(path, codec, on_damage="skip") as file:
        assert np.array_equal(file.missing, expected)
        assert np.array_equal(file.indices, np.setdiff1d(np.arange(N), expected))
        assert torch.equal(file.read(), z_hat[torch.from_numpy(file.indices)])
        assert len(file) == N
        for i in (expected[0], expected[0] - N):
            with pytest.raises(ContainerError, match=rf"z\.lsl: example {expected[0]}\b"):
                file[i]
        if len(file.indices):
            i = file.indices[-1]
            assert torch.equal(file[i], z_hat[i])


def test_a_truncated_file_does_not_know_its_end(path, codec, intact, z_hat):
    path.write_bytes(intact)
    with FeatureFile(path, codec, on_damage="skip") as file:
        assert torch.equal(file.read(), z_hat) and file.damaged == []
    path.write_bytes(intact[: spans(intact)[2].start + 50])
    with FeatureFile(path, codec, on_damage="skip") as file:
        assert torch.equal(file.read(), z_hat[:32]) and len(file) == 32
        assert len(file.missing) == 0 and "unknown" in file.damaged[-1]
    with pytest.raises(ContainerError, match=r"z\.lsl: .*truncated.*on_damage='skip'"):
        FeatureFile(path, codec)


def test_every_bit_and_every_cut_is_detected(codec):
    buffer = io.BytesIO()
    batch = draw_features(9), np.arange(9), [str(i) for i in range(9)]
    write_features([batch], buffer, codec, chunk_size=4, n_workers=1)
    data = buffer.getvalue()
    damages = [data[:length] for length in range(len(data))]
    damages += [flip_bit(data, position, position % 8) for position in range(len(data))]
    for damaged in damages:
        with pytest.raises((ContainerError, CodingError)), FeatureFile(damaged, codec) as file:
            file.read(n_workers=1)


def test_other_chunks_can_be_read_from_a_damaged_file(path, codec, intact, z_hat):
    path.write_bytes(flipped(intact, [3]))
    with FeatureFile(path, codec) as file:
        assert torch.equal(file[:48], z_hat[:48])
        with pytest.raises(ContainerError, match=r"z\.lsl: chunk 3: checksum"):
            file[48]
        for n_workers in (1, 2):
            with pytest.raises(ContainerError, match=r"z\.lsl: chunk 3: checksum"):
                file.read(n_workers=n_workers)


def test_swapped_missing_and_other_chunks_are_detected(path, codec, intact):
    first, second, *_ = spans(intact)
    swapped = intact[: first.start] + intact[second] + intact[first] + intact[second.stop :]
    write(path, codec, draw_features(N, seed=9), chunk_size=CHUNK_SIZE)
    chunk = path.read_bytes()[spans(path.read_bytes())[0]]
    other_chunk = intact[: first.start] + chunk + intact[first.stop :]
    missing = intact[: first.start] + intact[second.start :]
    for data in (swapped, other_chunk, missing):
        path.write_bytes(data)
        with pytest.raises(ContainerError, match=r"z\.lsl: "):
            read(path, codec)
        with FeatureFile(path, codec, on_damage="skip") as file:
            assert file.damaged


def test_other_files_and_newer_versions_are_named(path, codec, intact):
    for data in (b"", bytes(1000), b"\x93NUMPY" + bytes(200), random.Random(0).randbytes(9999)):
        path.write_bytes(data)
        with pytest.raises(ContainerError, match=r"z\.lsl: (is not a compressed|is empty)"):
            FeatureFile(path, codec)
    path.write_bytes(intact[:8] + b"\x03" + intact[9:])
    with pytest.raises(ContainerError, match=r"z\.lsl: .*version 3"):
        FeatureFile(path, codec)
    reading, writing = os.pipe()
    with open(reading), open(writing), pytest.raises(ContainerError, match=f"/{reading}: .*pipe"):
        FeatureFile(f"/dev/fd/{reading}", codec)


def test_payloads_of_other_tables_and_wrong_shapes_are_named(path, codec, intact):
    layout = CompressedFile(intact)
    chunks = [(layout.read_body(chunk).payload, chunk.n_examples) for chunk in layout.heads]
    payload, n = chunks[2]

    def rewrite(*wrong_chunk, **wrong_header) -> None:
        """The same file with valid checksums, but a different chunk 2 or header."""
        with path.open("wb") as file:
            writer = FileWriter(file, dataclasses.replace(layout.header, **wrong_header))
            for chunk in [*chunks[:2], wrong_chunk or chunks[2], *chunks[3:]]:
                writer.add(*chunk)
            writer.finish()

    random_bytes = random.Random(0).randbytes(70)
    wrong = [(payload[:-1], n), (payload + b"\1", n), (payload, n - 1), (b"", n), (random_bytes, n)]
    for wrong_chunk in wrong:
        rewrite(*wrong_chunk)
        for on_damage in ("raise", "skip"):
            with pytest.raises(CodingError, match=r"z\.lsl: chunk 2: "):
                read(path, codec, on_damage=on_damage)
    rewrite(shape=(9,))
    with pytest.raises(ContainerError, match=r"z\.lsl: .*\[9\].*\[8\]"):
        FeatureFile(path, codec)


def test_an_empty_file_is_not_damaged(path, codec):
    write_features([], path, codec)
    for on_damage in ("raise", "skip"):
        with FeatureFile(path, codec, on_damage=on_damage) as file:
            assert len(file) == 0 and file.read().shape == file[:].shape == (0, codec.z_dim)
            assert file.missing.tolist() == file.indices.tolist() == file.damaged == []
