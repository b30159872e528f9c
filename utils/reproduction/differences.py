"""Effects of deliberate differences from the official code, measured on trained compressors."""

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from lossyless._compressai import GaussianConditional
from lossyless.compressors import LearnableCompressor
from lossyless.distortions import ContrastiveDistortion
from lossyless.rates import HHyper
from lossyless.rates.hyperprior import LOG_SCALE_STEP, MIN_SCALE, N_SCALES
from utils.load_pretrained import load_runs

N_EXAMPLES = 1024


@torch.no_grad()
def measured(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Yield difference, run and effect for one compressor per data set and distortion."""
    seen = set()
    for row, compressor, data in load_runs(folder, accelerator="cpu"):
        kind = f"{row['datafeat']}, {row['dist']}"
        if kind in seen or not isinstance(compressor, LearnableCompressor):
            continue
        seen.add(kind)
        run = f"{folder.name}: {kind}, beta {float(row['beta']):g}"
        batch, rate = next(iter(data.loader("test"))), compressor.rate
        x = batch.x[:N_EXAMPLES]
        z = compressor.represent(x)
        z_hat, rates, _ = rate(z, None)
        decoded = rate.decompress(payload := rate.compress(z), len(z))
        n_equal = int((decoded == z_hat).all(1).sum())
        yield "accuracy", run, f"{n_equal} of {len(z)} decoded z_hat equal those in evaluation"
        alone = 8 * sum(len(rate.compress(each[None])) for each in z) / len(z)
        shared, theory = 8 * len(payload) / len(z), float(rates.mean()) / math.log(2)
        effect = f"{theory:.4g} bits in theory, {shared:.4g} in one stream, {alone:.4g} separately"
        yield "streams", run, effect
        if isinstance(rate, HHyper):
            yield "hyperprior", run, _means_and_scales(rate, z)
        if isinstance(compressor.distortion, ContrastiveDistortion):
            positive, _, _ = rate(compressor.represent(batch.aux[:N_EXAMPLES]), None)
            yield "InfoNCE", run, _offset(compressor.distortion, z_hat, positive)


def _means_and_scales(rate: HHyper, z: Tensor) -> str:
    """Bits of z in CompressAI's streams if z is rounded around predicted means or scales."""
    z_in = rate._to_bottleneck(z)
    mean, index = rate._coding_gaussian(rate.side_prior(rate._coding_side(z_in))[0])
    scales = MIN_SCALE * (torch.arange(N_SCALES) * LOG_SCALE_STEP).exp()
    coder = GaussianConditional(scales.tolist())
    coder.update()
    ours, official = (
        8 * sum(map(len, coder.compress(z_in, index, means=centres))) / len(z)
        for centres in (mean, scales[index])
    )
    return f"CompressAI's stream of z: {ours:.4g} bits, {official:.4g} with scales as means"


def _offset(distortion: ContrastiveDistortion, z_hat: Tensor, positive: Tensor) -> str:
    """Describe distortions with the log-weight of negatives added after or before dividing by T."""
    n_images, n_others, temperature = 60_000, len(z_hat) - 1, float(distortion.temperature)
    weight, bits = (n_images - 1) / n_others, []
    for weight_here in (weight, weight ** (1 / temperature)):
        distortion.effective_batch_size = 1 + weight_here * n_others
        bits.append(float(distortion(z_hat, positive)[0].mean()) / math.log(2))
    return (
        f"{n_images:,} images per batch, temperature {temperature:.2f}: distortion {bits[0]:.4g} "
        f"bits, {bits[1]:.4g} if the weight is added before dividing"
    )
