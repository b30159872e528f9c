"""Damaged files of features: an error that says where, or exactly what is intact."""

import random
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.stored_features import draw_features, make_codec, quantised, read, write

from lossyless.coding.payloads import CodingError
from lossyless.container import ContainerError, ContainerReader, ContainerWriter, format
from lossyless.feature_files import FeatureFile, reading, write_features
from lossyless.feature_files.codecs import MAX_CHUNK_VALUES

N, CHUNK_SIZE = 100, 16


@pytest.fixture(scope="module")
def codec():
    return make_codec()


@pytest.fixture(scope="module")
def z_hat(codec):
    return quantised(codec, draw_features(N))


@pytest.fixture(scope="module")
def intact(codec, tmp_path_factory):
    """The bytes of a file."""
    path = tmp_path_factory.mktemp("intact") / "z.lsl"
    write(path, codec, draw_features(N), chunk_size=CHUNK_SIZE)
    return path.read_bytes()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "z.lsl"


def spans(data: bytes, path: Path) -> list[slice]:
    """Bytes of each chunk."""
    path.write_bytes(data)
    with ContainerReader(path) as reader:
        return [slice(chunk.offset, chunk.end) for chunk in reader._chunks]


def flip_bits(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice([1, 1, 2, 10])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def overwrite(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    data[start : start + 30] = rng.randbytes(min(30, len(data) - start))


def clear(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    n = min(rng.choice([1, 8, 300]), len(data) - start)
    data[start : start + n] = bytes(n)


def truncate(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def cut_out(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.randrange(1, 200)]


def insert(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    data[start:start] = rng.randbytes(rng.randrange(1, 50))


def repeat(data: bytearray, rng: random.Random) -> None:
    start, stop = sorted(rng.choices(range(len(data)), k=2))
    data[stop:stop] = data[start:stop]


def exchange(data: bytearray, rng: random.Random) -> None:
    """Two parts change places."""
    a, b, c, d = sorted(rng.choices(range(len(data)), k=4))
    data[a:d] = data[c:d] + data[b:c] + data[a:b]


DAMAGES = [flip_bits, overwrite, clear, truncate, cut_out, insert, repeat, exchange]


def assert_never_wrong(path: Path, codec, z_hat: torch.Tensor) -> None:
    """A damaged file raises an error that names it; what can be recovered is what was written."""
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
        is_known = "unknown" not in file.damaged[-1]
        assert not is_known or len(file) == len(z_hat)


@pytest.mark.parametrize("n", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_random_damage_is_never_read_as_features(path, codec, intact, z_hat, n):
    for seed in range(n):
        rng = random.Random(seed)
        data = bytearray(intact)
        while data == intact:
            rng.choice(DAMAGES)(data, rng)
        path.write_bytes(data)
        assert_never_wrong(path, codec, z_hat)


@pytest.mark.parametrize("lost", [[0], [3], [6], [1, 2, 5], list(range(7))])
@pytest.mark.parametrize("is_cut", [False, True])
def test_intact_chunks_are_found_and_missing_examples_named(
    path, codec, intact, z_hat, lost, is_cut
):
    data = bytearray(intact)
    for chunk in lost:
        data[spans(intact, path)[chunk].stop - 1] ^= 1
    if is_cut:
        del data[-20:]
    path.write_bytes(data)
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


def test_a_cut_file_misses_its_end(path, codec, intact, z_hat):
    path.write_bytes(intact[: spans(intact, path)[2].start + 50])
    with FeatureFile(path, codec, on_damage="skip") as file:
        assert torch.equal(file.read(), z_hat[:32])
        assert np.array_equal(file.missing, np.arange(32, N))
    with pytest.raises(ContainerError, match=r"z\.lsl: the file is cut"):
        FeatureFile(path, codec)


def test_an_intact_file_misses_nothing(path, codec, intact, z_hat):
    path.write_bytes(intact)
    with FeatureFile(path, codec, on_damage="skip") as file:
        assert torch.equal(file.read(), z_hat)
        assert len(file.missing) == 0 and file.damaged == []


def test_damage_elsewhere_does_not_matter(path, codec, intact, z_hat):
    data = bytearray(intact)
    data[spans(intact, path)[3].stop - 1] ^= 1
    path.write_bytes(data)
    with FeatureFile(path, codec) as file:
        assert torch.equal(file[:48], z_hat[:48])
        with pytest.raises(ContainerError, match=r"z\.lsl: chunk 3: its checksum"):
            file[48]
        for n_workers in (1, 2):
            with pytest.raises(ContainerError, match=r"z\.lsl: chunk 3: its checksum"):
                file.read(n_workers=n_workers)


def test_swapped_chunks_and_chunks_of_another_file_are_named(path, codec, intact):
    first, second, *_ = spans(intact, path)
    swapped = intact[: first.start] + intact[second] + intact[first] + intact[second.stop :]
    other = path.with_name("other")
    write(other, codec, draw_features(N), chunk_size=CHUNK_SIZE)  # the same features
    foreign = intact[: first.start] + other.read_bytes()[first] + intact[first.stop :]
    for data, reason in ((swapped, "another chunk"), (foreign, "from another file")):
        path.write_bytes(data)
        with pytest.raises(ContainerError, match=rf"z\.lsl: chunk [01]: .*{reason}"):
            read(path, codec)


def test_foreign_files_and_newer_versions_are_named(path, codec, intact):
    for data in (b"", bytes(1000), b"\x93NUMPY" + bytes(200), random.Random(0).randbytes(9999)):
        path.write_bytes(data)
        with pytest.raises(ContainerError, match=r"z\.lsl: (not a file of comp|is empty)"):
            FeatureFile(path, codec)
    path.write_bytes(intact[:8] + b"\x02" + intact[9:])
    with pytest.raises(ContainerError, match=r"z\.lsl: has version 2"):
        FeatureFile(path, codec)


def rewrite(path: Path, payloads=None, **changes) -> None:
    """The same file with right checksums, but other payloads or another header."""
    with ContainerReader(path) as reader:
        chunks, header = list(reader), reader.header
    kept = {name: getattr(header, name) for name in ("fingerprint", "codec", "shape", "sections")}
    with ContainerWriter(path, **kept | changes) as writer:
        for payload, n in chunks if payloads is None else payloads(chunks):
            writer.add(payload, n)


def test_payloads_that_the_tables_cannot_have_made_are_named(path, codec):
    for change in (
        lambda chunks: [*chunks[:2], (chunks[2][0][:-1], CHUNK_SIZE), *chunks[3:]],
        lambda chunks: [*chunks[:2], (chunks[2][0] + b"\1", CHUNK_SIZE), *chunks[3:]],
        lambda chunks: [*chunks[:2], (chunks[2][0], CHUNK_SIZE - 1), *chunks[3:]],
        lambda chunks: [*chunks[:2], (b"", CHUNK_SIZE), *chunks[3:]],
        lambda chunks: [*chunks[:2], (random.Random(0).randbytes(70), CHUNK_SIZE), *chunks[3:]],
    ):
        write(path, codec, draw_features(N), chunk_size=CHUNK_SIZE)
        rewrite(path, change)
        for on_damage in ("raise", "skip"):
            with pytest.raises(CodingError, match=r"z\.lsl: chunk 2: "):
                read(path, codec, on_damage=on_damage)


def test_headers_that_do_not_fit_the_codec_are_named(path, codec):
    for changes, match in (
        ({"shape": (9,)}, r"holds examples float32 \[9\], not features float32 \[8\]"),
        ({"dtype": "float16"}, "holds examples float16"),
        ({"sections": {"tables": b"any"}}, "has coding tables of its own"),
    ):
        write(path, codec, draw_features(N))
        rewrite(path, **changes)
        with pytest.raises((ContainerError, CodingError), match=rf"z\.lsl: {match}"):
            FeatureFile(path, codec)


def test_a_file_cannot_ask_for_more_memory_than_its_bytes_can_hold(path, codec, monkeypatch):
    monkeypatch.setattr(reading, "physical_memory", lambda: 1 << 34)
    n = MAX_CHUNK_VALUES // codec.z_dim
    write(path, codec, draw_features(N))
    rewrite(path, lambda chunks: [(b"\0", n)] * 2000)
    for on_damage in ("raise", "skip"):
        with FeatureFile(path, codec, on_damage=on_damage) as file:
            for use in (file.read, lambda file=file: file[:], lambda file=file: file.indices):
                with pytest.raises(ContainerError, match=rf"z\.lsl: claims {2000 * n} examples"):
                    use()
            assert len(file) == 2000 * n and len(file.missing) == 0


def test_missing_examples_are_listed_only_if_there_are_not_too_many(path, codec, intact):
    path.write_bytes(intact)
    with FeatureFile(path, codec) as file:
        seed = file._reader._file._seed
        start = file._reader._file.first_chunk
    total = format.TOTAL.pack(2**62, format.NO_LABELS)
    forged = total + format.CRC.pack(zlib.crc32(total, seed))
    path.write_bytes(intact[: start - len(forged)] + forged + intact[start:-1])
    with FeatureFile(path, codec, on_damage="skip") as file:
        assert len(file) == 2**62 and len(file.read()) == N
        with pytest.raises(ContainerError, match="examples are missing.*too many"):
            _ = file.missing


def test_a_chunk_cannot_ask_for_more_memory_than_there_is(path, codec):
    write(path, codec, draw_features(N))
    rewrite(path, lambda chunks: [(b"", format.UINT32_MAX)] * 2)
    for on_damage in ("raise", "skip"):
        with pytest.raises(ContainerError, match="chunk of 4294967295 examples, more than"):
            FeatureFile(path, codec, on_damage=on_damage)


def test_an_empty_file_is_not_damaged(path, codec):
    write_features([], path, codec)
    for on_damage in ("raise", "skip"):
        with FeatureFile(path, codec, on_damage=on_damage) as file:
            assert len(file) == 0 and file.read().shape == file[:].shape == (0, codec.z_dim)
            assert file.missing.tolist() == file.indices.tolist() == file.damaged == []
