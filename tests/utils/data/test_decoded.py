"""Decoded data: 8-bit pixels, in memory or memory-mapped, with the same results."""

from functools import partial

import pytest
import torch
from helpers.batches import gather

from lossyless.classical import ClassicalCompressor, RawPixels
from utils.data import examples
from utils.data.decoded import DecodedDataModule, allocate, from_pixels, to_pixels
from utils.data.module import DataError

SMALL = 1000  # bytes, fewer than any split of the digits has


def spy_on_files(monkeypatch) -> list[tuple[int, torch.dtype]]:
    """Sizes and types of all tensors that are created in files from now on."""
    made = []
    from_file = torch.from_file

    def noting(name, *, size, dtype, **kwargs):
        made.append((size, dtype))
        return from_file(name, size=size, dtype=dtype, **kwargs)

    monkeypatch.setattr(torch, "from_file", noting)
    return made


# --- pixels


def test_eight_bit_images_are_exact_and_others_are_rounded_to_the_nearest_pixel():
    pixels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_pixels(from_pixels(pixels)), pixels)
    assert torch.equal(to_pixels(pixels.double() / 255), pixels)
    original = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    jpeg, raw = ClassicalCompressor("jpeg", 3, 20), RawPixels((3, 8, 8))
    for codec in (ClassicalCompressor("png", 3), jpeg, raw):
        decoded = codec(original)
        assert torch.equal(from_pixels(to_pixels(decoded)), decoded)
    images = torch.linspace(-0.5, 1.5, 10_001)
    rounded = from_pixels(to_pixels(images))
    assert len(rounded.unique()) == 256
    assert ((rounded - images.clamp(0, 1)).abs() <= 0.5 / 255 + 1e-6).all()


# --- collecting


def batches(*sizes: int, shape: tuple[int, ...] = (3,)) -> list[torch.Tensor]:
    x = torch.rand(sum(sizes), *shape, generator=torch.Generator().manual_seed(0))
    return list(x.split(list(sizes)))


@pytest.mark.parametrize("limit", [0, 2**20])
def test_vectors_are_collected_unchanged_and_images_as_pixels(limit, tmp_path, monkeypatch):
    monkeypatch.setattr(examples, "MAX_RESIDENT_BYTES", limit)
    for sizes in ((7,), (3, 3, 1), (1, 6)):
        parts = batches(*sizes)
        found = DecodedDataModule.collect(iter(parts), 7, tmp_path / "decoded_val", kind="vector")
        assert torch.equal(found, torch.cat(parts))
    parts = batches(4, 3, shape=(1, 2, 2))
    found = DecodedDataModule.collect(iter(parts), 7, tmp_path / "decoded_val", kind="bw_image")
    assert torch.equal(found, to_pixels(torch.cat(parts)))


def test_numbers_of_examples_and_targets_must_match(tmp_path):
    for sizes in ((), (4,), (3, 3), (5, 1), (3, 3, 3)):
        parts = batches(*sizes) if sizes else []
        with pytest.raises(DataError, match=f"decoded_val: 5 targets.*{sum(sizes)} examples"):
            DecodedDataModule.collect(iter(parts), 5, tmp_path / "decoded_val", kind="vector")


@pytest.mark.parametrize("limit", [SMALL - 1, SMALL])
@pytest.mark.parametrize("n_left", [None, 10, 100 * SMALL])  # left by a killed process
def test_large_tensors_are_made_in_a_file_without_a_name(limit, n_left, tmp_path, monkeypatch):
    made = spy_on_files(monkeypatch)
    monkeypatch.setattr(examples, "MAX_RESIDENT_BYTES", limit)
    if n_left and limit < SMALL:
        (tmp_path / "decoded_val").write_bytes(b"\xff" * n_left)
    values = allocate((SMALL // 20, 5), torch.float32, tmp_path / "decoded_val").fill_(3)
    assert (values == 3).all() and values.shape == (SMALL // 20, 5)
    assert bool(made) == (limit < SMALL)
    assert list(tmp_path.iterdir()) == []


# --- serving


def module(n: int = 400) -> DecodedDataModule:
    x = torch.arange(n * 4, dtype=torch.uint8).view(n, 1, 2, 2)
    y = torch.arange(n) % 10
    splits = {"train": (x, y), "val": (x[:9], y[:9]), "test": (x[:9], y[:9])}
    return DecodedDataModule(splits, task="classification", n_outputs=10, kind="bw_image")


def test_epochs_cycle_through_copies():
    n, n_copies = 10, 3
    x, y = torch.arange(n * n_copies).float()[:, None], torch.arange(n).repeat(n_copies)
    splits = {"train": (x, y), "val": (x[:4], y[:4]), "test": (x[4:], y[4:])}
    load = partial(DecodedDataModule, splits, task="classification", n_outputs=n, batch_size=4)
    data = load(n_copies=n_copies)
    assert data.n_examples("train") == n and data.n_examples("test") == len(x) - 4
    for epoch in range(5):
        found, targets, _ = gather(data.loader("train", epoch=epoch))
        first = epoch % n_copies * n
        assert torch.equal(found[:, 0].sort().values, torch.arange(first, first + n).float())
        assert torch.equal(targets, found[:, 0].long() % n)
    assert torch.equal(gather(data.loader("val", epoch=2)).x, x[:4])


ELSEWHERE = torch.device("meta")  # stands for a GPU, without its memory


def test_only_small_inputs_move_to_the_device_as_a_whole(monkeypatch):
    monkeypatch.setattr(examples, "MAX_RESIDENT_BYTES", SMALL)
    for n, home in ((400, "cpu"), (9, "meta")):
        x, y = torch.arange(n * 4, dtype=torch.uint8).view(n, 1, 2, 2), torch.arange(n)
        in_memory = examples.InMemory(x, y)
        found = list(in_memory.read([torch.tensor([7, 3]), torch.tensor([8])], ELSEWHERE))
        assert [x.shape for x, _ in found] == [(2, 1, 2, 2), (1, 1, 2, 2)]
        assert all(t.device == ELSEWHERE for pair in found for t in pair)
        assert {t.device.type for t in in_memory._on_device[ELSEWHERE]} == {home}


def test_large_splits_give_the_same_batches(monkeypatch):
    small = list(module().loader("train", epoch=3))
    monkeypatch.setattr(examples, "MAX_RESIDENT_BYTES", SMALL)
    for batch, other in zip(small, module().loader("train", epoch=3), strict=True):
        assert torch.equal(batch.x, other.x) and torch.equal(batch.y, other.y)
