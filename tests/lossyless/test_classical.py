"""Image codecs: exactness, damage, rate, and image quality."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from helpers.damage import flip_bit
from sklearn.datasets import load_digits
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from lossyless.classical import CODECS, ClassicalCompressor, RawPixels
from lossyless.coding.payloads import CodingError, decode_blobs, encode_blobs
from utils.data.decoded import DecodedDataModule
from utils.evaluation.quality import MIN_SIDES, ImageQuality, measure_codec, ms_ssim, scale_weights

LOSSY = ("jpeg", "webp")


def images(n_channels, n=6, side=32):
    """Digits [n, C, side, side] in [0, 1], with 256 levels; colours are shifted copies."""
    digits = torch.from_numpy(load_digits().images[:n]).float()[:, None] / 16
    grey = torch.nn.functional.interpolate(digits, size=(side, side), mode="bilinear")
    planes = [grey.roll(4 * channel, dims=-1) for channel in range(n_channels)]
    return (torch.cat(planes, dim=1).clamp(0, 1) * 255).round() / 255


def psnr(found, expected):
    return -10 * math.log10((found - expected).square().mean().item() + 1e-12)


@pytest.mark.parametrize("n_channels", [1, 3])
def test_png_is_exact(n_channels):
    codec, noise = ClassicalCompressor("png", n_channels), torch.rand(3, n_channels, 5, 9)
    for x in (images(n_channels), (noise * 255).round() / 255):
        assert torch.equal(codec.decompress(codec.compress(x), len(x)), x)
        assert torch.equal(codec(x), x) and torch.equal(codec.receive(codec.represent(x)), x)
    with pytest.raises(CodingError, match="expected 5 images, found 3"):
        codec.decompress(codec.compress(noise), 5)


def test_pixels_are_rounded_to_256_levels_and_clamped():
    x = torch.tensor([-0.5, 0.0, 0.2501, 1.0, 7.0]).view(1, 1, 1, 5)
    expected = torch.tensor([0, 0, 64, 255, 255]).view(1, 1, 1, 5) / 255
    for codec in (ClassicalCompressor("png", 1), RawPixels((1, 1, 5))):
        assert torch.equal(codec(x), expected)


@pytest.mark.parametrize("codec", LOSSY)
@pytest.mark.parametrize("n_channels", [1, 3])
def test_higher_quality_needs_more_bits(codec, n_channels):
    x = images(n_channels)
    codecs = [ClassicalCompressor(codec, n_channels, quality) for quality in (5, 50, 95)]
    n_bytes = [len(codec.compress(x)) for codec in codecs]
    fidelity = [psnr(codec(x), x) for codec in codecs]
    assert n_bytes == sorted(n_bytes) and n_bytes[0] < 0.9 * n_bytes[-1]
    assert fidelity == sorted(fidelity) and fidelity[-1] > (35 if n_channels == 1 else 25)


@pytest.mark.parametrize("codec", CODECS)
def test_images_are_coded_independently_and_decoded_at_any_quality(codec):
    low, high = (ClassicalCompressor(codec, 3, quality) for quality in (5, 95))
    x = images(3)
    payload = low.compress(x)
    assert decode_blobs(payload) == [decode_blobs(low.compress(i[None]))[0] for i in x]
    assert not list(low.parameters()) and low.fingerprint() == high.fingerprint() == codec
    assert torch.equal(high.decompress(payload, 6), low.decompress(payload, 6))


# --- damage


@pytest.mark.parametrize("codec", CODECS)
def test_truncated_payloads_and_files_are_errors(codec):
    codec = ClassicalCompressor(codec, 3)
    payload = codec.compress(images(3, n=1))
    (file,) = decode_blobs(payload)
    for length in range(0, len(file) - 24, 7):  # a PNG is still complete without its end marker
        with pytest.raises(CodingError):
            codec.decompress(payload[:length], 1)
        with pytest.raises(CodingError):
            codec.decompress(encode_blobs([file[:length]]), 1)


@pytest.mark.parametrize("codec", CODECS)
def test_damage_raises_only_coding_errors(codec):
    """Formats without checksums cannot detect all damage."""
    codec = ClassicalCompressor(codec, 3)
    files = decode_blobs(codec.compress(images(3, n=2, side=16)))
    rng, n_raised = np.random.default_rng(0), 0
    for _ in range(300):
        damaged = flip_bit(files[1], rng.integers(min(len(files[1]), 120)), rng.integers(8))
        try:
            codec.decompress(encode_blobs([files[0], damaged]), 2)
        except CodingError:
            n_raised += 1
    assert n_raised > 30


# --- raw pixels


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 9), (4, 2, 2)])
def test_raw_pixels_are_exact_and_need_eight_bits_per_value(shape):
    x = (torch.rand(7, *shape) * 255).round() / 255
    codec = RawPixels(shape)
    payload = codec.compress(x)
    assert len(payload) == 7 * math.prod(shape)
    assert torch.equal(codec.decompress(payload, 7), x) and torch.equal(codec(x), x)
    assert codec.is_reconstruct and codec.format_name == codec.fingerprint() == "none"
    assert not list(codec.parameters())


def test_invalid_images_and_settings_are_errors():
    for make, found in (
        (lambda: RawPixels((2,)), r"\[2\]"),
        (lambda: ClassicalCompressor("gif", 3), "'gif'.*webp"),
        (lambda: ClassicalCompressor("png", 2), "2"),
        *(
            (partial(ClassicalCompressor, codec, 3, quality), f"quality={quality} of {codec}")
            for codec in CODECS
            for quality in (-1, 101, 50.5)
        ),
    ):
        with pytest.raises(ValueError, match=found):
            make()
    codec = RawPixels((1, 8, 8))
    with pytest.raises(ValueError, match=r"expected images \[1, 8, 8\], found \[1, 16, 16\]"):
        codec.compress(images(1, side=16))


# --- quality


def noisy(x, std=0.1):
    return (x + std * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


def quality_of(decoded, x, batch_size=4):
    quality = ImageQuality()
    for a, b in zip(decoded.split(batch_size), x.split(batch_size), strict=True):
        quality.add(a, b)
    return quality.metrics()


def test_quality_is_the_mean_over_images_for_any_batch_size():
    x = images(3, n=10)
    decoded = torch.cat([noisy(x[:5], 0.01), noisy(x[5:], 0.2)])
    found = quality_of(decoded, x)
    psnr = [peak_signal_noise_ratio(a, b, data_range=1.0) for a, b in zip(decoded, x, strict=True)]
    assert found["psnr"] == pytest.approx(torch.stack(psnr).mean().item())
    assert found["mse"] == pytest.approx((decoded - x).square().mean().item())
    alone = [ms_ssim(decoded[i : i + 1], x[i : i + 1], scale_weights(32)) for i in range(10)]
    assert found["ms-ssim"] == pytest.approx(torch.cat(alone).mean().item(), rel=1e-5)
    assert quality_of(decoded, x, batch_size=10) == pytest.approx(found)


def test_equal_images_are_perfect_but_do_not_dominate_the_mean():
    x = images(1, n=6)
    assert quality_of(x, x) == {"mse": 0, "psnr": math.inf, "ms-ssim": pytest.approx(1)}
    small = images(1, side=10)  # smaller than the window of the structural similarity
    assert set(quality_of(small, small)) == {"mse", "psnr"}
    decoded = noisy(x)
    expected = quality_of(decoded[1:], x[1:])["psnr"]
    decoded[0] = x[0]
    assert quality_of(decoded, x)["psnr"] == pytest.approx(expected)


def test_the_number_of_scales_follows_the_side_and_weights_sum_to_one():
    assert [len(scale_weights(side)) for side in (8, 16, 32, 64, 96, 128, 224)] == [
        *(0, 1, 2, 3, 3, 4, 5)
    ]
    for n_scales, side in enumerate(MIN_SIDES, start=1):
        weights = scale_weights(side)
        assert len(weights) == n_scales == len(scale_weights(side - 1)) + 1
        assert sum(weights) == pytest.approx(1)
        x = torch.rand(2, 1, side, side + 3, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(ms_ssim(x, x, weights), torch.ones(2))
        assert (ms_ssim(noisy(x), x, weights) < 0.999).all()


def test_a_single_scale_gives_the_structural_similarity():
    x = images(1, side=16)
    expected = structural_similarity_index_measure(noisy(x), x, data_range=1.0, reduction="none")
    torch.testing.assert_close(ms_ssim(noisy(x), x, scale_weights(16)), expected)


# --- a whole split


def measured(codec, x, batch_size=4):
    y = torch.zeros(len(x), dtype=torch.int64)
    data = DecodedDataModule(
        {split: (x, y) for split in ("train", "val", "test")},
        task="classification",
        n_outputs=1,
        kind="bw_image",
        eval_batch_size=batch_size,
    )
    return measure_codec(codec, data, "test", torch.device("cpu"))


def test_the_bits_of_a_split_are_the_size_of_its_payloads():
    x, codec = images(1, n=10), ClassicalCompressor("jpeg", 1, 30)
    found = measured(codec, x, batch_size=10)
    assert found["test/feat/n_bits"] == 8 * len(codec.compress(x)) / 10
    assert found["test/feat/rate"] == found["test/feat/n_bits"] == 1024 * found["test/feat/bpp"]
    expected = {f"test/feat/{name}": v for name, v in quality_of(codec(x), x, 10).items()}
    assert found.items() >= expected.items()
    assert found["test/feat/sender_time"] > 0 < found["test/feat/receiver_time"]
