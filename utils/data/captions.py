"""Captions as vectors: features of CLIP's text tower, computed once and kept on disk."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from lossyless.backbones.clip import import_clip, load_clip
from lossyless.weights import WeightsError
from utils.data.feature_cache import FeatureCache, array_file
from utils.data.module import DataError
from utils.runs.stopwatch import Stopwatch

BATCH_SIZE = 512
PRECISION = np.float16  # as CLIP's own weights


def caption_features(
    captions: Sequence[str], *, weights: str = "ViT-B/32", dim: int = 512, folder: Path
) -> Tensor:
    """Unnormalised features float16 [N, dim] of captions by CLIP (https://arxiv.org/abs/2103.00020).

    They are computed on a GPU if there is one, and later read from the folder. Captions of more
    than 77 tokens are truncated.

    Parameters
    ----------
    captions : N strings.
    weights : name of one of CLIP's models, downloaded at the first use, or path of its weights.
    dim : dimensions of its features.
    folder : where the features are kept.

    Raises
    ------
    DataError
        If the weights cannot be loaded or do not give `dim` features, or if the file of the
        features is damaged.
    """
    cache = FeatureCache(folder, "clip_text", _key(captions, weights), {}, setting="paths.data")
    which = "captions", 0, None
    features = cache.get(*which, compute=lambda part: _compute(part, captions, weights, dim)).x
    if features.shape != (len(captions), dim):
        raise DataError(
            f"{cache.path(*which)} holds features {list(features.shape)}, expected "
            f"{[len(captions), dim]}: set kwargs.feature_dim to the dimensions of {weights}, or "
            "delete the folder to compute them again."
        )
    return features


def _key(captions: Sequence[str], weights: str) -> dict[str, str]:
    """What the features depend on: the captions and the content of the weights."""
    digest = hashlib.sha256()
    for caption in captions:
        digest.update(hashlib.sha256(caption.encode()).digest())
    if Path(weights).is_file():
        with open(weights, "rb") as file:
            weights = hashlib.file_digest(file, "sha256").hexdigest()
    return {"weights": weights, "captions": digest.hexdigest()}


@torch.inference_mode()
def _compute(folder: Path, captions: Sequence[str], weights: str, dim: int) -> dict:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tower = _load(weights, str(device))
    found = tower.text_projection.shape[1]
    if found != dim:
        raise DataError(
            f"CLIP's model {weights} gives features of {found} dimensions, not {dim}: set "
            f"kwargs.feature_dim={found}."
        )
    print(f"CLIP {weights}: computing features of {len(captions)} captions on {device}, once.")
    clip, watch = import_clip(), Stopwatch(device)
    features = np.empty((len(captions), dim), PRECISION)
    # tqdm prints nothing unless stderr is a terminal
    for start in tqdm(range(0, len(captions), BATCH_SIZE), "captions", disable=None):
        batch = list(captions[start : start + BATCH_SIZE])
        tokens = clip.tokenize(batch, context_length=tower.context_length, truncate=True)
        with watch:
            encoded = tower.encode_text(tokens.to(device))
        features[start : start + len(batch)] = encoded.cpu().numpy()
    np.save(array_file(folder, "features"), features)
    np.save(array_file(folder, "targets"), np.empty((len(captions), 0), PRECISION))
    return {"seconds_per_image": watch.seconds / len(captions), "device": device.type}


def _load(weights: str, device: str) -> nn.Module:
    """CLIP's model on a device."""
    try:
        return load_clip(weights, device)[0]
    except WeightsError as error:
        raise DataError(
            f"kwargs.clip_weights={weights!r}: {error} (kwargs.clip_weights is the name of one of "
            "CLIP's models, or a path.)"
        ) from error
