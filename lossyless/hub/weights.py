"""Loads compressors: the released ones by name, others from local files.

Importing this module does not import CompressAI, which takes a second.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from lossyless.backbones.clip import load_clip
from lossyless.coding.payloads import CodingError
from lossyless.hub import RELEASED
from lossyless.torch_state import drawing_from
from lossyless.weights import WeightsError, fetch, load_strictly, read_checkpoint, sha256_of

if TYPE_CHECKING:
    from lossyless.hub.clip import ClipCompressor
    from lossyless.hub.features import FeatureCompressor
    from lossyless.hub.labels import PathLike
    from lossyless.rates import HFactorized

CLIP = "ViT-B/32"
PRETRAINED_PATH = "pretrained_path=, --pretrained"  # in Python and on the command line

_LEGACY_NAMES = {"matrix": "matrices", "bias": "biases", "factor": "factors"}  # CompressAI 1.1
# computed from the other tensors by the CompressAI model's `update`; empty in official files
_DERIVED = {f"entropy_bottleneck.{name}" for name in ("_offset", "_quantized_cdf", "_cdf_length")}
_EXTRA = "_extra_state"


def clip_compressor(
    model: str = "b005",
    *,
    device: str | torch.device | None = None,
    clip_path: PathLike | None = None,
    pretrained_path: PathLike | None = None,
    is_jit: bool = False,
    rdo: float = 0.0,
) -> tuple[ClipCompressor, Callable[[Image.Image], Tensor]]:
    """Load an image compressor; return it and its image transform.

    Parameters
    ----------
    model : a key of `lossyless.hub.RELEASED`.
    device : where CLIP runs; by default a CUDA device if there is one, else the CPU.
    clip_path : CLIP ViT-B/32 checkpoint; by default OpenAI's, downloaded on first use.
    pretrained_path : bottleneck weights; by default the released ones, downloaded on first use.
    is_jit : has no effect; accepted for compatibility with the official code.
    rdo : weight of a bit when symbols are chosen (see `lossyless.rates.EntropyCodedRate`); 0.1
        saves bits at the cost of slightly larger errors. Files can be read with any value.

    Raises ValueError if the model is unknown, the device is unavailable, `rdo` is negative, or the
    dimensions of CLIP and the bottleneck differ; WeightsError if weights are missing or damaged,
    belong to another network, or cannot be downloaded.
    """
    from lossyless.hub.clip import ClipCompressor

    device = _checked_device(device)
    if clip_path is not None:
        _check_file(clip_path, "clip_path=, --clip")  # before the bottleneck is downloaded
    rate, name = _bottleneck(model, pretrained_path)
    rate.rdo = rdo
    clip, transform = load_clip(CLIP if clip_path is None else os.fspath(clip_path))
    compressor = ClipCompressor(clip.visual, rate, transform, name).to(device)
    return compressor, compressor.transform


def feature_compressor(
    model: str = "b005", *, pretrained_path: PathLike | None = None
) -> FeatureCompressor:
    """Load a compressor for CLIP features, which reads `clip_compressor` files without CLIP.

    Parameters and errors are as for `clip_compressor`.
    """
    from lossyless.hub.features import FeatureCompressor

    return FeatureCompressor(*_bottleneck(model, pretrained_path))


def load_bottleneck(path: PathLike) -> HFactorized:
    """Load a rate from its weights, in evaluation mode and ready to code.

    Reads `HFactorized` state dicts with any transform, with or without coding tables, and those
    saved by the official code, with the names that CompressAI 1.1 (`_matrix0`) or later versions
    (`matrices.0`) use. Quantiles are kept unchanged, so z_hat equals that of the official format.

    Raises WeightsError if the file is missing or damaged, or does not hold such weights.
    """
    from lossyless.rates import HFactorized
    from lossyless.rates.entropy_coded import TRANSFORM

    state = {
        _name(str(n)): value for n, value in read_checkpoint(path).items() if n not in _DERIVED
    }
    extra = state.pop(_EXTRA, {})
    biasing = state.get("biasing")
    if not isinstance(biasing, Tensor) or biasing.ndim != 1 or len(biasing) == 0:
        raise WeightsError(f"{path}: not the weights of a bottleneck: no vector `biasing`")
    try:
        with drawing_from(torch.Generator()):  # layers draw initial weights, replaced below
            rate = HFactorized(len(biasing), transform=extra.get(TRANSFORM, "none"))
        rate.prior.are_centres_fixed = True
        load_strictly(rate, state | {_EXTRA: extra}, path)
        if not rate.has_tables:
            rate.update()
    except (ArithmeticError, CodingError, ValueError) as error:  # bad weights or unknown transform
        raise WeightsError(f"{path}: {error}") from error
    return rate.eval()


def _name(official: str) -> str:
    """Map the official name of a tensor to its name in `HFactorized`."""
    name = re.sub(r"^entropy_bottleneck\.", "prior.", official)
    return re.sub(
        r"^prior\._(matrix|bias|factor)(\d+)$",
        lambda match: f"prior.{_LEGACY_NAMES[match[1]]}.{match[2]}",
        name,
    )


def _bottleneck(model: str, pretrained_path: PathLike | None) -> tuple[HFactorized, str]:
    """Load a bottleneck; return it and the name of its weights (a released model or a file)."""
    if model not in RELEASED:
        raise ValueError(f"model: expected one of {', '.join(RELEASED)}, found {model!r}")
    if pretrained_path is not None:
        _check_file(pretrained_path, PRETRAINED_PATH)
        # shapes are the same in all released files: the wrong file would load without an error
        sha256 = sha256_of(pretrained_path)
        known = [name for name, released in RELEASED.items() if released.sha256 == sha256]
        if known and known != [model]:
            warnings.warn(
                f"{pretrained_path}: these are the released weights of {known[0]}, not of {model}; "
                f"using {known[0]}",
                stacklevel=3,
            )
        return load_bottleneck(pretrained_path), known[0] if known else Path(pretrained_path).name
    released = RELEASED[model]
    try:
        path = fetch(released.url, sha256=released.sha256)
    except WeightsError as error:
        raise WeightsError(f"{error}, or pass its path ({PRETRAINED_PATH})") from None
    return load_bottleneck(path), model


def _checked_device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch without CUDA
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device: {str(device)!r} is not available: {reason}") from None


def _check_file(path: PathLike, arguments: str) -> None:
    if not Path(path).is_file():
        found = "is not a file" if Path(path).exists() else "no such file"
        raise WeightsError(f"{path}: {found} ({arguments})")
