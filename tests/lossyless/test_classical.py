"""Image codecs: exactness, damage, rate."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from helpers.damage import flip_bit
from helpers.pictures import digits

from lossyless.classical import CODECS, ClassicalCompressor, RawPixels
from lossyless.coding.payloads import CodingError, decode_blobs, encode_blobs

LOSSY = ("jpeg", "webp")


def psnr(found, expected):
    return -10 * math.log10((found - expected).square().mean().item() + 1e-12)


@pytest.mark.parametrize("n_channels", [1, 3])
def test_png_is_exact(n_channels):
    codec, noise = ClassicalCompressor("png", n_channels), torch.rand(3, n_channels, 5, 9)
    for x in (digits(n_channels), (noise * 255).round() / 255):
        assert torch.equal(codec.decompress(codec.compress(x), len(x)), x)
        assert torch.equal(codec(x), x) and torch.equal(codec.receive(codec.represent(x)), x)
    with pytest.raises(CodingError, match="5 images.*3"):
        codec.decompress(codec.compress(noise), 5)


def test_pixels_are_rounded_to_256_levels_and_clamped():
    x = torch.tensor([-0.5, 0.0, 0.2501, 1.0, 7.0]).view(1, 1, 1, 5)
    expected = torch.tensor([0, 0, 64, 255, 255]).view(1, 1, 1, 5) / 255
    for codec in (ClassicalCompressor("png", 1), RawPixels((1, 1, 5))):
        assert torch.equal(codec(x), expected)


@pytest.mark.parametrize("codec", LOSSY)
@pytest.mark.parametrize("n_channels", [1, 3])
def test_higher_quality_needs_more_bits(codec, n_channels):
    x = digits(n_channels)
    codecs = [ClassicalCompressor(codec, n_channels, quality) for quality in (5, 50, 95)]
    n_bytes = [len(codec.compress(x)) for codec in codecs]
    fidelity = [psnr(codec(x), x) for codec in codecs]
    assert n_bytes == sorted(n_bytes) and n_bytes[0] < 0.9 * n_bytes[-1]
    assert fidelity == sorted(fidelity) and fidelity[-1] > (35 if n_channels == 1 else 25)


@pytest.mark.parametrize("codec", CODECS)
def test_images_are_coded_independently_and_decoded_at_any_quality(codec):
    low, high = (ClassicalCompressor(codec, 3, quality) for quality in (5, 95))
    x = digits(3)
    payload = low.compress(x)
    assert decode_blobs(payload) == [decode_blobs(low.compress(i[None]))[0] for i in x]
    assert not list(low.parameters()) and low.fingerprint() == high.fingerprint() == codec
    assert torch.equal(high.decompress(payload, 6), low.decompress(payload, 6))


# --- damage


@pytest.mark.parametrize("codec", CODECS)
def test_truncated_payloads_and_files_are_errors(codec):
    codec = ClassicalCompressor(codec, 3)
    payload = codec.compress(digits(3, n=1))
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
    files = decode_blobs(codec.compress(digits(3, n=2, side=16)))
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
    with pytest.raises(ValueError, match=r"\[1, 8, 8\].*\[1, 16, 16\]"):
        codec.compress(digits(1, side=16))
