"""PNG, JPEG and WebP as compressors: exactness, quality, damage."""

import math
import zlib

import pytest
import torch
from sklearn.datasets import load_digits

from lossyless.classical import CODECS, ClassicalCompressor
from lossyless.payloads import CodingError, decode_blobs, encode_blobs

LOSSY = ("jpeg", "webp")


def images(n_channels, n=6, side=32):
    """Digits [n, C, side, side] in [0, 1], each of 256 levels; colours are shifted copies."""
    digits = torch.from_numpy(load_digits().images[:n]).float()[:, None] / 16
    grey = torch.nn.functional.interpolate(digits, size=(side, side), mode="bilinear")
    planes = [grey.roll(4 * channel, dims=-1) for channel in range(n_channels)]
    return (torch.cat(planes, dim=1).clamp(0, 1) * 255).round() / 255


def psnr(found, expected):
    return -10 * math.log10((found - expected).square().mean().item() + 1e-12)


@pytest.mark.parametrize("n_channels", [1, 3])
def test_png_is_exact(n_channels):
    x, codec = images(n_channels), ClassicalCompressor("png", n_channels)
    assert torch.equal(codec.decompress(codec.compress(x), len(x)), x)
    assert torch.equal(codec(x), x)


def test_png_keeps_noise_of_any_size():
    x = (torch.rand(3, 3, 5, 9) * 255).round() / 255
    assert torch.equal(ClassicalCompressor("png", 3)(x), x)


def test_pixels_are_rounded_to_256_levels_and_clamped():
    x = torch.tensor([-0.5, 0.0, 0.2501, 1.0, 7.0]).view(1, 1, 1, 5)
    expected = torch.tensor([0, 0, 64, 255, 255]).view(1, 1, 1, 5) / 255
    assert torch.equal(ClassicalCompressor("png", 1)(x), expected)


@pytest.mark.parametrize("codec", LOSSY)
@pytest.mark.parametrize("n_channels", [1, 3])
def test_quality_buys_fidelity_with_bits(codec, n_channels):
    x = images(n_channels)
    codecs = [ClassicalCompressor(codec, n_channels, quality) for quality in (5, 50, 95)]
    n_bytes = [len(codec.compress(x)) for codec in codecs]
    fidelity = [psnr(codec(x), x) for codec in codecs]
    assert n_bytes == sorted(n_bytes) and n_bytes[0] < 0.9 * n_bytes[-1]
    assert fidelity == sorted(fidelity) and fidelity[-1] > 25
    assert all(codec(x).shape == x.shape for codec in codecs)


def test_grey_images_survive_at_high_quality():
    x = images(1)
    for codec in LOSSY:
        assert psnr(ClassicalCompressor(codec, 1, 95)(x), x) > 35


@pytest.mark.parametrize("codec", CODECS)
def test_an_image_costs_the_same_in_any_batch(codec):
    x, codec = images(3), ClassicalCompressor(codec, 3)
    alone = [decode_blobs(codec.compress(image[None]))[0] for image in x]
    assert decode_blobs(codec.compress(x)) == alone


@pytest.mark.parametrize("codec", CODECS)
def test_nothing_is_learnt_and_any_quality_decodes_any_other(codec):
    low, high = (ClassicalCompressor(codec, 3, quality) for quality in (5, 95))
    assert not list(low.parameters()) and low.fingerprint() == high.fingerprint() == codec
    payload = low.compress(images(3))
    assert torch.equal(high.decompress(payload, 6), low.decompress(payload, 6))


def test_the_receiver_works_on_images():
    codec, x = ClassicalCompressor("png", 1), images(1)
    assert codec.is_reconstruct
    assert torch.equal(codec.receive(codec.represent(x)), x)


@pytest.mark.parametrize(
    "codec, n_channels, message",
    [("gif", 3, "unknown classical codec 'gif'.*webp"), ("png", 2, "1 or 3 channels, not of 2")],
)
def test_what_it_cannot_code_is_named(codec, n_channels, message):
    with pytest.raises(ValueError, match=message):
        ClassicalCompressor(codec, n_channels)


# --- damage


def test_another_number_of_images_is_named():
    codec = ClassicalCompressor("png", 1)
    with pytest.raises(CodingError, match="expected 5 images, found 6"):
        codec.decompress(codec.compress(images(1)), 5)


@pytest.mark.parametrize("codec", CODECS)
def test_truncated_payloads_and_files_raise(codec):
    codec = ClassicalCompressor(codec, 3)
    payload = codec.compress(images(3, n=1))
    (file,) = decode_blobs(payload)
    for length in range(0, len(file) - 24, 7):  # PNG: without its end marker it is still whole
        with pytest.raises(CodingError):
            codec.decompress(payload[:length], 1)
        with pytest.raises(CodingError):
            codec.decompress(encode_blobs([file[:length]]), 1)


@pytest.mark.parametrize("codec", CODECS)
def test_damage_raises_nothing_but_coding_errors(codec):
    """Formats without checksums cannot tell all damage; it must never look like another fault."""
    codec = ClassicalCompressor(codec, 3)
    files = decode_blobs(codec.compress(images(3, n=2, side=16)))
    generator, n_raised = torch.Generator().manual_seed(0), 0
    for _ in range(300):
        damaged = bytearray(files[1])
        position = torch.randint(min(len(damaged), 120), (), generator=generator).item()
        damaged[position] ^= 1 << torch.randint(8, (), generator=generator).item()
        try:
            codec.decompress(encode_blobs([files[0], bytes(damaged)]), 2)
        except CodingError:
            n_raised += 1
    assert n_raised > 30


def test_headers_that_mislead_pillow_are_damage():
    codec = ClassicalCompressor("png", 1)
    (file,) = decode_blobs(codec.compress(images(1, 1, 16)))
    short_header = file[:11] + b"\x04" + file[12:]  # 4 bytes instead of 13
    huge = file[:16] + b"\x00\x01\x00\x00" * 2 + file[24:]  # 65536 x 65536 pixels
    for damaged in (short_header, _with_header_checksum(huge)):
        with pytest.raises(CodingError, match="not an image that Pillow can read"):
            codec.decompress(encode_blobs([damaged]), 1)


def _with_header_checksum(png):
    return png[:29] + zlib.crc32(png[12:29]).to_bytes(4, "big") + png[33:]


def test_images_of_different_sizes_are_not_one_batch():
    codec = ClassicalCompressor("png", 1)
    files = [decode_blobs(codec.compress(images(1, 1, side)))[0] for side in (8, 16)]
    with pytest.raises(CodingError, match="differ in size"):
        codec.decompress(encode_blobs(files), 2)
