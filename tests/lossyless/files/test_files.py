"""Compressed files: exact, small, read whole or in parts, in constant memory."""

import io
import pickle
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.fixed_codecs import CODECS, with_fixed_weights
from helpers.stored_features import Z_DIM, draw_features, make_codec, quantised, read, write
from torch.utils.data import DataLoader

from lossyless.base import Codec
from lossyless.classical import RawPixels
from lossyless.coding.payloads import CodingError
from lossyless.files import (
    CompressedFile,
    ContainerError,
    FeatureDataset,
    FeatureFile,
    reader,
    write_features,
    writer,
)

N = 100


@pytest.fixture
def file(path, codec, z):
    write(path, codec, z)
    with FeatureFile(path, codec) as file:
        yield file


@pytest.mark.parametrize("n", [0, 1, 32, N])
def test_reading_gives_z_hat_exactly(path, codec, n):
    z = draw_features(n)
    written = write(path, codec, z)
    assert torch.equal(read(path, codec), quantised(codec, z))
    assert (written.n_examples, written.n_bytes) == (n, path.stat().st_size)
    assert list(path.parent.iterdir()) == [path]


def test_bytes_depend_on_examples_alone(path, codec, z):
    """Batches, types, memory layout, workers and the order of metadata have no influence."""
    z = z.half().float()
    write(path, codec, z, meta={"b": 1, "a": 2})
    expected = path.read_bytes()
    conversions = (
        lambda x: x,
        lambda x: x.double(),
        lambda x: x.half(),
        lambda x: x.numpy(),
        lambda x: x.flip(0).numpy()[::-1],
        lambda x: x.clone().requires_grad_(),
        lambda x: x.tolist(),
        lambda x: pd.DataFrame(x.numpy(), index=range(len(x), 0, -1)),
    )
    cases = [([40, 0, 60], convert) for convert in conversions[:-2]]
    cases += [([N], convert) for convert in conversions]
    cases += [(sizes, conversions[0]) for sizes in ([1] * N, [32, 32, 36])]
    for i, (sizes, convert) in enumerate(cases):
        batches, meta = map(convert, z.split(sizes)), {"a": 2, "b": 1}
        write_features(batches, path, codec, chunk_size=32, n_workers=1 + i % 2, meta=meta)
        assert path.read_bytes() == expected


def fixed_codec(name: str) -> Codec:
    torch.manual_seed(0)
    return with_fixed_weights(CODECS[name]())


@pytest.mark.parametrize("name", ["factorized", "hyperprior", "float32", "int3"])
def test_every_codec_reads_its_files(path, name):
    """This holds for any batch and chunk sizes, and for batches that reuse memory."""
    codec, z = fixed_codec(name), 3 * draw_features(150)

    def batches(size):
        buffer = torch.empty(size, Z_DIM)
        for part in z.split(size):
            yield buffer[: len(part)].copy_(part)

    for chunk_size, batch_size, n_workers in ((10, 45, 1), (32, 10, 2)):
        chunks = z.split(chunk_size)
        expected = torch.cat([codec.decompress(codec.compress(part), len(part)) for part in chunks])
        write_features(batches(batch_size), path, codec, chunk_size=chunk_size, n_workers=n_workers)
        with FeatureFile(path, codec) as file:
            assert torch.equal(file.read(n_workers=n_workers), expected)
            assert torch.equal(file[[40, 3]], expected[[40, 3]])


def test_bytes_and_features_do_not_depend_on_the_number_of_threads(path):
    codec, z, n_threads = fixed_codec("hyperprior"), 3 * draw_features(N), torch.get_num_threads()
    contents = []
    try:
        for writing, reading in ((1, 3), (2, 1), (3, 2)):
            torch.set_num_threads(writing)
            write_features([z], path, codec, chunk_size=32, n_workers=1)
            torch.set_num_threads(reading)
            with FeatureFile(path, codec) as file:
                contents.append((path.read_bytes(), file.read(n_workers=1).tolist()))
    finally:
        torch.set_num_threads(n_threads)
    assert contents[0] == contents[1] == contents[2]


@pytest.mark.parametrize(
    "batch",
    [
        torch.ones(3),
        torch.ones(3, Z_DIM + 1),
        torch.ones(3, Z_DIM, dtype=torch.int64),
        np.ones((3, Z_DIM), complex),
        {1.0, 2.0},
        [{1.0}, {2.0}],
    ],
)
def test_batches_of_wrong_shape_or_type_are_errors(path, codec, batch):
    with pytest.raises(ValueError, match=r"expected .*\["):
        write_features([draw_features(3), batch], path, codec)
    assert not path.exists()


def test_errors_name_the_examples_that_cannot_be_coded(path, codec, z):
    with pytest.raises(CodingError, match=r"z\.lsl: examples 0 to 31: .*beyond int32"):
        write(path, codec, z * 1e12)  # finite, but the cells are too fine
    z = z.clone()
    z[70, 3] = float("nan")
    z[71, 1] = float("inf")
    message = r"z\.lsl: examples 64 to 95, first nan in column 3 of example 70: .*NaN"
    for one in (codec, fixed_codec("hyperprior")):
        with pytest.raises(CodingError, match=message):
            write(path, one, z)
    assert not list(path.parent.iterdir())


def test_chunk_sizes_are_bounded(path, codec, z, monkeypatch):
    for chunk_size in (0, 2**40):
        with pytest.raises(ValueError, match="chunk_size"):
            write(path, codec, z, chunk_size=chunk_size)
    monkeypatch.setattr(writer, "MAX_CHUNK_VALUES", 20 * Z_DIM)
    write(path, codec, z, chunk_size=None)
    assert CompressedFile(path).describe()["n_chunks"] == N // 20


def test_examples_are_selected_as_from_an_array(file, z_hat):
    for i in (0, 31, 32, N - 1, -1, -N, np.int64(5), torch.tensor(5)):
        assert torch.equal(file[i], z_hat[i])
    slices = [slice(None), slice(10, 40), slice(None, None, 7), slice(90, 2, -11), slice(50, 10)]
    for selection in slices:
        assert torch.equal(file[selection], z_hat[list(range(N))[selection]])
    for indices in ([], [3], [99, 0, 0, -1, 33], list(range(N))[::-1]):
        array = np.array(indices, np.int64)
        for selection in (indices, array, torch.from_numpy(array), pd.Series(array)):
            assert torch.equal(file[selection], z_hat[torch.from_numpy(array)])
    mask = np.arange(N) % 3 == 0
    assert torch.equal(file[mask], z_hat[torch.from_numpy(mask)])


def test_invalid_selections_are_errors(file):
    for selection in (N, -N - 1, [0, N], 1.0, "a", [0.5], np.ones(N - 1, bool), {1, 2}):
        with pytest.raises(IndexError):
            file[selection]
    for selection in (None, [[1]], True):
        with pytest.raises(TypeError):
            file[selection]


def test_a_file_is_a_sequence(file, z_hat):
    assert len(file) == N and torch.equal(torch.stack(list(file)), z_hat)
    firsts, parts = zip(*file.chunks(n_workers=1), strict=True)
    assert firsts == (0, 32, 64, 96) and torch.equal(torch.cat(parts), z_hat)
    assert file.indices.tolist() == list(range(N)) and file.missing.tolist() == []
    with pickle.loads(pickle.dumps(file)) as copy:
        assert torch.equal(copy.read(), z_hat)


def test_only_the_required_chunks_are_read(file, monkeypatch):
    reads = []
    read = CompressedFile.read_body
    monkeypatch.setattr(
        CompressedFile,
        "read_body",
        lambda self, chunk: reads.append(chunk.number) or read(self, chunk),
    )
    file[[5, 99, 6]]
    file[[1, 2]], file[97]  # cached
    assert sorted(reads) == [0, 3]
    file[40:50]
    assert sorted(reads) == [0, 1, 3]


def test_the_cache_is_bounded(file, z_hat, monkeypatch):
    monkeypatch.setattr(reader, "CACHE_BYTES", 4 * 2 * 32 * Z_DIM)
    for i in torch.randperm(N, generator=torch.Generator().manual_seed(0)).tolist():
        assert torch.equal(file[i], z_hat[i])
        assert 1 <= len(file._cache) <= 3  # the last chunk has 4 examples


def test_threads_can_share_a_file(file, z_hat, monkeypatch):
    monkeypatch.setattr(reader, "CACHE_BYTES", 4 * 2 * 32 * Z_DIM)

    def read(seed: int) -> bool:
        rows = np.random.default_rng(seed).integers(N, size=(100, 3))
        return all(torch.equal(file[i], z_hat[i]) for i in rows)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(read, range(8)))
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("n_workers", [0, 2])
def test_data_loaders_read_files(path, codec, z, z_hat, n_workers):
    write(path, codec, z)
    labels = np.arange(N) * 3
    with FeatureDataset(path, codec, labels) as data:
        x, y = data[7]
        assert len(data) == N and torch.equal(x, z_hat[7]) and y == 21
        generator = torch.Generator().manual_seed(0)
        loader = DataLoader(
            data, batch_size=9, shuffle=True, generator=generator, num_workers=n_workers
        )
        for x, y in loader:
            assert torch.equal(x, z_hat[y // 3])
        write_features(DataLoader(data, batch_size=9), path.with_name("copy"), codec)
    with FeatureDataset(path.with_name("copy"), codec, labels=True) as copied:
        assert torch.equal(copied[7][0], z_hat[7]) and copied[7][1] == 21
    with FeatureDataset(path, codec, labels=False) as data:
        assert torch.equal(next(iter(DataLoader(data, batch_size=9))), z_hat[:9])


def test_other_models_and_options_are_errors(path, codec, z):
    write(path, codec, z)
    for other in (make_codec(seed=5), make_codec(z_dim=3)):
        with pytest.raises(ContainerError, match=r"z\.lsl: .*entropy model"):
            FeatureFile(path, other)
    with pytest.raises(ValueError, match="on_damage.*'ignore'"):
        FeatureFile(path, codec, on_damage="ignore")


def test_size_is_the_cross_entropy_under_the_tables(path):
    codec, z = make_codec(512), draw_features(10_000, 512)
    written = write_features([z], path, codec)
    n_bits = codec.coder().information(codec.quantise(z)).sum()
    assert n_bits < 8 * written.n_bytes < 1.01 * n_bits
    with FeatureFile(path, codec) as file:
        assert torch.equal(file[::1000], quantised(codec, z[::1000]))


def test_files_can_be_in_memory(path, codec, z, z_hat):
    class Unbuffered(io.BytesIO):
        def write(self, data: bytes) -> int:
            return super().write(data[:100])

    buffer = Unbuffered()
    written = write_features([z], buffer, codec, chunk_size=32)
    write(path, codec, z)
    assert path.read_bytes() == buffer.getvalue() and written.n_bytes == len(buffer.getvalue())
    with FeatureFile(buffer.getvalue(), codec) as file:
        assert torch.equal(file.read(), z_hat)
    with pytest.raises(ContainerError, match="payload: .*truncated"):
        FeatureFile(buffer.getvalue()[:-1], codec)


def test_images_are_examples_too(path):
    codec, x = RawPixels((3, 5, 4)), torch.rand(70, 3, 5, 4)
    write_features(x.split(9), path, codec, chunk_size=16, n_workers=2)
    with FeatureFile(path, codec) as file:
        assert torch.equal(file.read(), codec(x)) and torch.equal(file[50], codec(x)[50])


def test_the_timer_measures_only_the_codec(path, codec, z):
    class Timer:
        n_entered = 0

        def __enter__(self):
            self.n_entered += 1

        def __exit__(self, *error):
            pass

    timer = Timer()
    write(path, codec, z, timer=timer)
    assert timer.n_entered == 8  # quantising and encoding each of 4 chunks
    with FeatureFile(path, codec) as file:
        assert len(list(file.chunks(n_workers=1, timer=timer))) == 4
    assert timer.n_entered == 16


def test_memory_does_not_grow_with_the_file(path, tmp_path):
    codec = make_codec(32)

    def peak(n_batches: int) -> int:
        rows = np.lib.format.open_memmap(
            tmp_path / "z.npy", "w+", np.float32, (1000 * n_batches, 32)
        )
        rows[:] = np.random.default_rng(0).normal(size=rows.shape)
        tracemalloc.start()
        write_features([rows], path, codec, chunk_size=500, n_workers=1)
        with FeatureFile(path, codec) as file:
            assert sum(len(rows) for _, rows in file.chunks(n_workers=1)) == 1000 * n_batches
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    peak(1)  # allocations on first use
    assert peak(60) < peak(10) + 1e6  # the larger file holds 6.4 MB more
