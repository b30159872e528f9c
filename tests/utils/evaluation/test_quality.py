"""The quality of decoded images, and the bits of a split."""

import math

import pytest
import torch
from helpers.pictures import digits
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from lossyless.classical import ClassicalCompressor
from utils.data.decoded import DecodedDataModule
from utils.evaluation.quality import MIN_SIDES, ImageQuality, measure_codec, ms_ssim, scale_weights


def noisy(x, std=0.1):
    return (x + std * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


def quality_of(decoded, x, batch_size=4):
    quality = ImageQuality()
    for a, b in zip(decoded.split(batch_size), x.split(batch_size), strict=True):
        quality.add(a, b)
    return quality.metrics()


def test_quality_is_the_mean_over_images_for_any_batch_size():
    x = digits(3, n=10)
    decoded = torch.cat([noisy(x[:5], 0.01), noisy(x[5:], 0.2)])
    found = quality_of(decoded, x)
    psnr = [peak_signal_noise_ratio(a, b, data_range=1.0) for a, b in zip(decoded, x, strict=True)]
    assert found["psnr"] == pytest.approx(torch.stack(psnr).mean().item())
    assert found["mse"] == pytest.approx((decoded - x).square().mean().item())
    alone = [ms_ssim(decoded[i : i + 1], x[i : i + 1], scale_weights(32)) for i in range(10)]
    assert found["ms-ssim"] == pytest.approx(torch.cat(alone).mean().item(), rel=1e-5)
    assert quality_of(decoded, x, batch_size=10) == pytest.approx(found)


def test_equal_images_are_perfect_but_do_not_dominate_the_mean():
    x = digits(1, n=6)
    assert quality_of(x, x) == {"mse": 0, "psnr": math.inf, "ms-ssim": pytest.approx(1)}
    small = digits(1, side=10)  # smaller than the window of the structural similarity
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
    x = digits(1, side=16)
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
    x, codec = digits(1, n=10), ClassicalCompressor("jpeg", 1, 30)
    found = measured(codec, x, batch_size=10)
    assert found["test/feat/n_bits"] == 8 * len(codec.compress(x)) / 10
    assert found["test/feat/rate"] == found["test/feat/n_bits"] == 1024 * found["test/feat/bpp"]
    expected = {f"test/feat/{name}": v for name, v in quality_of(codec(x), x, 10).items()}
    assert found.items() >= expected.items()
    assert found["test/feat/sender_time"] > 0 < found["test/feat/receiver_time"]
