"""Compressors from weights: released ones by their name, or local files."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from lossyless.backbones.clip_loading import load_clip
from lossyless.hub.bottlenecks import load_bottleneck
from lossyless.hub.compressor import ClipCompressor
from lossyless.hub.features import FeatureCompressor
from lossyless.hub.released import RELEASED
from lossyless.rates import HFactorized
from lossyless.weights import WeightsError, fetch, sha256_of

CLIP = "ViT-B/32"
CLIP_PATH = "clip_path=, --clip"  # how callers and the shell name local files
PRETRAINED = "pretrained_path=, --pretrained"


def clip_compressor(
    model: str = "b005",
    *,
    device: str | torch.device | None = None,
    clip_path: str | os.PathLike | None = None,
    pretrained_path: str | os.PathLike | None = None,
    is_jit: bool = False,
) -> tuple[ClipCompressor, Callable[[Image.Image], Tensor]]:
    """A compressor of images, and the transform that its images need.

    Parameters
    ----------
    model : a key of `released.RELEASED`.
    device : where CLIP runs; by default a CUDA device if there is one, else the CPU.
    clip_path : checkpoint of CLIP ViT-B/32; by default OpenAI's, downloaded on first use.
    pretrained_path : weights of the bottleneck; by default the released ones, downloaded on first
        use.
    is_jit : the official code's choice of CLIP's TorchScript archive; it has no effect.

    Raises
    ------
    ValueError
        There is no such model or device, or this CLIP has features of another size.
    WeightsError
        Weights are not there and cannot be downloaded, or are others than these.
    """
    device = _check_device(device)
    _check_model(model)
    for path, options in ((pretrained_path, PRETRAINED), (clip_path, CLIP_PATH)):
        _check_file(path, options)  # all that is local, before anything is downloaded
    rate = _bottleneck(model, pretrained_path)  # first: it is small, CLIP is 340 MB
    clip, transform = load_clip(CLIP if clip_path is None else os.fspath(clip_path))
    return ClipCompressor(clip.visual, rate, transform).to(device), transform


def feature_compressor(
    model: str = "b005", *, pretrained_path: str | os.PathLike | None = None
) -> FeatureCompressor:
    """The same without CLIP: reads every file of `clip_compressor`, and compresses features.

    Parameters and errors as for `clip_compressor`.
    """
    _check_model(model)
    _check_file(pretrained_path, PRETRAINED)
    return FeatureCompressor(_bottleneck(model, pretrained_path))


def _bottleneck(model: str, pretrained_path: str | os.PathLike | None) -> HFactorized:
    if pretrained_path is not None:
        _warn_of_another_model(model, pretrained_path)
        return load_bottleneck(pretrained_path)
    released = RELEASED[model]
    try:
        path = fetch(released.url, sha256=released.sha256)
    except WeightsError as error:
        raise WeightsError(f"{error}, or give its path ({PRETRAINED})") from None
    return load_bottleneck(path)


def _check_model(model: str) -> None:
    if model not in RELEASED:
        raise ValueError(f"model: expected one of {', '.join(RELEASED)}, found {model!r}")


def _check_device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # the latter: torch was built without CUDA
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device: {str(device)!r} cannot be used here: {reason}") from None


def _check_file(path: str | os.PathLike | None, options: str) -> None:
    if path is not None and not Path(path).is_file():
        found = "is not a file" if Path(path).exists() else "there is no such file"
        raise WeightsError(f"{path}: {found} ({options})")


def _warn_of_another_model(model: str, path: str | os.PathLike) -> None:
    """The released files differ in nothing but their numbers: a wrong one loads as well."""
    sha256 = sha256_of(path)
    for name, released in RELEASED.items():
        if released.sha256 == sha256 and name != model:
            warnings.warn(
                f"{path}: these are the released weights of {name}, not of {model}; {name} is used",
                stacklevel=4,
            )
