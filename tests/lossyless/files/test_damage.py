"""Damaged files raise an error that names the damage, or yield exactly the intact examples."""

import dataclasses
import io
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.stored_features import draw_features, read, write

from lossyless.coding.payloads import CodingError
from lossyless.files import CompressedFile, ContainerError, FeatureFile, FileWriter, write_features

N, CHUNK_SIZE = 100, 16


@pytest.fixture(scope="module")
def intact(codec, tmp_path_factory):
    """The bytes of a file."""
    path = tmp_path_factory.mktemp("intact") / "z.lsl"
    write(path, codec, draw_features(N), chunk_size=CHUNK_SIZE)
    return path.read_bytes()


def spans(data: bytes) -> list[slice]:
    """Byte range of each chunk."""
    return [slice(chunk.start - 32, chunk.end) for chunk in CompressedFile(data).heads]


def flipped(data: bytes, chunks: list[int]) -> bytes:
    """The file with one flipped bit in each of these chunks."""
    damaged = bytearray(data)
    for chunk in chunks:
        damaged[spans(data)[chunk].stop - 1] ^= 1
    return bytes(damaged)


def randomly_damaged(data: bytes, rng: random.Random) -> bytes:
    a = rng.randrange(len(data))
    b = min(a + rng.choice([1, 8, 300, len(data)]), len(data))
    n = b - a
    flip = bytes([data[a] ^ 1 << rng.randrange(8)]) + data[a + 1 : b]
    cut, cleared, repeated = b"", bytes(n), 2 * data[a:b]
    return data[:a] + rng.choice([flip, cut, cleared, repeated, rng.randbytes(n)]) + data[b:]


def assert_never_wrong(path: Path, codec, z_hat: torch.Tensor) -> None:
    """A damaged file raises an error that names it; recovered examples are exact."""
    with pytest.raises((ContainerError, CodingError), match=r"z\.lsl: "):
        read(path, codec)
    try:
        file = FeatureFile(path, codec, on_damage="skip")
    except ContainerError:  # a damaged header: nothing can be trusted
        return
    with file:
        assert torch.equal(file.read(n_workers=1), z_hat[torch.from_numpy(file.indices)])
        assert len(file) <= len(z_hat) and file.damaged
        every = np.sort(np.concatenate([file.indices, file.missing]))
        assert np.array_equal(every, np.arange(len(file)))
        is_known = not any("unknown" in reason for reason in file.damaged)
        assert not is_known or len(file) == len(z_hat)


@pytest.mark.parametrize("n", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_random_damage_is_never_read_as_features(path, codec, intact, z_hat, n):
    for seed in range(n):
        data = randomly_damaged(intact, random.Random(seed))
        if data != intact:
            path.write_bytes(data)
            assert_never_wrong(path, codec, z_hat)


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
            with pytest.raises(ContainerError, match=rf"z\.lsl: example {expected[0]} is lost"):
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
    with pytest.raises(ContainerError, match=r"z\.lsl: is cut"):
        FeatureFile(path, codec)


def test_every_bit_and_every_cut_is_detected(codec):
    buffer = io.BytesIO()
    batch = draw_features(9), np.arange(9), [str(i) for i in range(9)]
    write_features([batch], buffer, codec, chunk_size=4, n_workers=1)
    data = buffer.getvalue()
    damages = [data[:length] for length in range(len(data))]
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        damages.append(bytes(damaged))
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
    other = path.with_name("other")
    write(other, codec, draw_features(N, seed=9), chunk_size=CHUNK_SIZE)
    chunk = other.read_bytes()[spans(other.read_bytes())[0]]
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
    with pytest.raises(ContainerError, match=r"z\.lsl: has format version 3"):
        FeatureFile(path, codec)


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
    with pytest.raises(ContainerError, match=r"z\.lsl: holds examples \[9\], not \[8\]"):
        FeatureFile(path, codec)


def test_an_empty_file_is_not_damaged(path, codec):
    write_features([], path, codec)
    for on_damage in ("raise", "skip"):
        with FeatureFile(path, codec, on_damage=on_damage) as file:
            assert len(file) == 0 and file.read().shape == file[:].shape == (0, codec.z_dim)
            assert file.missing.tolist() == file.indices.tolist() == file.damaged == []
