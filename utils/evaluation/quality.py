"""Rate, quality and speed of image and vector codecs, computed batch by batch."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from lossyless.base import Compressor, PlainCompressor
from utils.data.features import FeatureDataModule
from utils.data.module import BatchLoader, DataModule
from utils.runs.stopwatch import Stopwatch

# Weights of the MS-SSIM scales, finest first (Wang et al., 2003, "Multiscale structural
# similarity for image quality assessment").
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
# Minimum side for 1, 2, ... scales: each additional scale halves the image, and a window of 11
# pixels must fit into the smallest image. (88 pixels suffice for four scales, but torchmetrics
# requires 99.)
MIN_SIDES = (11, 22, 44, 99, 176)
# Values to process at once: the roughly twenty copies that MS-SSIM makes then fit into CPU caches.
MAX_VALUES = 2**19


class ImageQuality:
    """Similarity of decoded images to their sources, both in [0, 1], accumulated over batches.

    mse : mean squared error over all values of all images.
    psnr : peak signal-to-noise ratio in dB, averaged over the images that differ from their source,
        because a single identical image would make the mean infinite; inf if all are identical.
    ms-ssim : multiscale structural similarity, averaged over images. It uses as many of the five
        standard scales as the image size allows, with their weights renormalised to sum to one, and
        is omitted if the shortest side is below 11 pixels.
    """

    def __init__(self) -> None:
        self._mse: list[Tensor] = []
        self._ms_ssim: list[Tensor] = []

    def add(self, decoded: Tensor, images: Tensor) -> None:
        """Add decoded images and their sources, each [B, C, H, W]."""
        mse = (decoded - images).square().flatten(1).mean(1)
        self._mse.append(mse.double().cpu())
        if weights := scale_weights(min(images.shape[-2:])):
            differs = mse > 0
            similarities = torch.ones_like(mse)  # for identical images
            if differs.any():
                similarities[differs] = ms_ssim(decoded[differs], images[differs], weights)
            self._ms_ssim.append(similarities.double().cpu())

    def metrics(self) -> dict[str, float]:
        """mse, psnr and, if defined, ms-ssim over all images added so far."""
        mse = torch.cat(self._mse)
        inexact = mse[mse > 0]
        psnr = -10 * inexact.log10().mean().item() if len(inexact) else math.inf
        metrics = {"mse": mse.mean().item(), "psnr": psnr}
        if self._ms_ssim:
            metrics["ms-ssim"] = torch.cat(self._ms_ssim).mean().item()
        return metrics


class VectorQuality:
    """Similarity of decoded vectors to their sources, accumulated over batches.

    mse : mean squared error over all values of all vectors.
    nmse : mse divided by the variance about the mean vector; 1 for a receiver that always outputs
        this mean.
    """

    def __init__(self) -> None:
        self._n_examples = 0
        self._error: Tensor | float = 0.0
        self._sum: Tensor | float = 0.0
        self._square: Tensor | float = 0.0

    def add(self, decoded: Tensor, vectors: Tensor) -> None:
        """Add decoded vectors and their sources, each [B, D]."""
        vectors = vectors.double()
        self._n_examples += len(vectors)
        self._error = self._error + (decoded.double() - vectors).square().sum(0)
        self._sum = self._sum + vectors.sum(0)
        self._square = self._square + vectors.square().sum(0)

    def metrics(self) -> dict[str, float]:
        """mse and nmse over all vectors added so far."""
        mse = (self._error / self._n_examples).mean().item()
        variances = self._square / self._n_examples - (self._sum / self._n_examples).square()
        variance = variances.mean().item()
        return {"mse": mse, "nmse": mse / variance if variance > 0 else math.nan}


def backbone_time(data: DataModule, split: str) -> float:
    """Seconds per example that a frozen backbone takes on a split; 0 if there is no backbone."""
    return data.encoder_time(split) if isinstance(data, FeatureDataModule) else 0.0


def scale_weights(side: int) -> tuple[float, ...]:
    """Weights, summing to one, of the MS-SSIM scales for images whose shortest side is `side`."""
    weights = SCALE_WEIGHTS[: sum(side >= min_side for min_side in MIN_SIDES)]
    return tuple(weight / sum(weights) for weight in weights)


def ms_ssim(decoded: Tensor, images: Tensor, weights: Sequence[float]) -> Tensor:
    """Return the multiscale structural similarity [B] of each pair of images [B, C, H, W]."""
    n_at_once = max(1, MAX_VALUES // math.prod(images.shape[1:]))
    # "relu" replaces negative similarities, whose powers are undefined, with 0
    similarities = [
        multiscale_structural_similarity_index_measure(
            *pair, data_range=1.0, betas=tuple(weights), normalize="relu", reduction="none"
        )
        for pair in zip(decoded.split(n_at_once), images.split(n_at_once), strict=True)
    ]
    return torch.cat(similarities)


def stated_rate(compressor: Compressor, loader: BatchLoader) -> float | None:
    """Bits per example according to the compressor's entropy model; None if it has none."""
    if not hasattr(compressor, "rates"):
        return None
    rates = [compressor.rates(batch.x) for batch in loader]
    return torch.cat(rates).mean().item() / math.log(2)


def measure_codec(
    codec: PlainCompressor, data: DataModule, split: str, device: torch.device
) -> dict[str, float]:
    """Measure the rate, quality and speed of a codec on a split, as metrics `<split>/feat/<name>`.

    - n_bits: coded bits per example.
    - rate: theoretical bits per example; n_bits if there is no entropy model.
    - bpp: bits per pixel, for images.
    - sender_time (including a frozen backbone), receiver_time: seconds per example.
    - the metrics of `ImageQuality` or `VectorQuality`.

    Only one batch is in memory at a time.
    """
    is_image = data.kind != "vector"
    sender, receiver = Stopwatch(device), Stopwatch(device)
    quality = ImageQuality() if is_image else VectorQuality()
    n_bytes = n_examples = 0
    for batch in data.loader(split, device=device):
        with sender:
            payload = codec.compress(codec.represent(batch.x))
        with receiver:
            decoded = codec.receive(codec.decompress(payload, len(batch.x)).to(device))
        quality.add(decoded, batch.x)
        n_bytes += len(payload)
        n_examples += len(batch.x)
    n_bits = 8 * n_bytes / n_examples
    rate = stated_rate(codec, data.loader(split, device=device))
    metrics = {
        "rate": n_bits if rate is None else rate,
        "n_bits": n_bits,
        "sender_time": sender.seconds / n_examples + backbone_time(data, split),
        "receiver_time": receiver.seconds / n_examples,
    } | quality.metrics()
    if is_image:
        metrics["bpp"] = n_bits / math.prod(data.shape[1:])
    return {f"{split}/feat/{name}": value for name, value in metrics.items()}
