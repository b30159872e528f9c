"""Compressors from weights: released ones by their name, or local files."""

import os
from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor

from lossyless.clip_loading import load_clip
from lossyless.hub.bottlenecks import load_bottleneck
from lossyless.hub.compressor import ClipCompressor
from lossyless.hub.features import FeatureCompressor
from lossyless.hub.released import RELEASED
from lossyless.rates import HFactorized
from lossyless.weights import fetch

CLIP = "ViT-B/32"


def clip_compressor(
    model: str = "b005",
    *,
    device: str | torch.device | None = None,
    clip_path: str | os.PathLike | None = None,
    pretrained_path: str | os.PathLike | None = None,
) -> tuple[ClipCompressor, Callable[[Image.Image], Tensor]]:
    """A compressor of images, and the transform that its images need.

    Parameters
    ----------
    model : a key of `released.RELEASED`.
    device : where CLIP runs; by default a CUDA device if there is one, else the CPU.
    clip_path : checkpoint of CLIP ViT-B/32; by default OpenAI's, downloaded on first use.
    pretrained_path : weights of the bottleneck; by default the released ones, downloaded on first
        use.

    Raises
    ------
    WeightsError
        Weights are not there and cannot be downloaded, or are others than these.
    """
    rate = _bottleneck(model, pretrained_path)  # first: it is small, CLIP is 340 MB
    clip, transform = load_clip(CLIP if clip_path is None else os.fspath(clip_path))
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    compressor = ClipCompressor(clip.visual, rate, transform).to(device)
    return compressor, transform


def feature_compressor(
    model: str = "b005", *, pretrained_path: str | os.PathLike | None = None
) -> FeatureCompressor:
    """The same without CLIP: reads every file of `clip_compressor`, and compresses features.

    Parameters and errors as for `clip_compressor`.
    """
    return FeatureCompressor(_bottleneck(model, pretrained_path))


def _bottleneck(model: str, pretrained_path: str | os.PathLike | None) -> HFactorized:
    if pretrained_path is not None:
        return load_bottleneck(pretrained_path)
    if model not in RELEASED:
        raise ValueError(f"model: expected one of {', '.join(RELEASED)}, found {model!r}")
    released = RELEASED[model]
    return load_bottleneck(fetch(released.url, sha256=released.sha256))
