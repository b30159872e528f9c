"""Captions as vectors: features of CLIP's text tower, computed once and kept on disk."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn
from tqdm import tqdm

from lossyless.backbones.clip import import_clip, load_clip
from lossyless.weights import WeightsError
from utils.data.module import DataError
from utils.runs.files import writable_dir

BATCH_SIZE = 512
# of the features on disk and in memory: the precision of CLIP's own weights
PRECISION = np.float16


def caption_features(
    captions: Sequence[str], *, weights: str = "ViT-B/32", dim: int = 512, folder: Path
) -> Tensor:
    """Unnormalised features float16 [N, dim] of captions by CLIP (https://arxiv.org/abs/2103.00020).

    They are computed on a GPU if there is one, and then read from the folder whenever the same
    captions are asked for again. Captions of more than 77 tokens are cut off.

    Parameters
    ----------
    captions : N strings.
    weights : name of one of CLIP's models, to be downloaded at the first use, or path of a file
        with its weights.
    dim : dimensions of its features.
    folder : where the features are kept.

    Raises
    ------
    DataError
        If the weights cannot be had or do not give `dim` features, or if the file of the features
        is damaged.
    """
    folder = writable_dir(folder)
    path = folder / f"clip_text_{_digest(captions, weights)}.npy"
    with FileLock(folder / ".clip_text.lock"):
        if not path.is_file():
            _save(path, _compute(captions, weights, dim))
    try:
        features = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is damaged: {error}. Delete it to compute it again.") from error
    if features.shape != (len(captions), dim):
        raise DataError(
            f"{path} holds features {list(features.shape)}, expected {[len(captions), dim]}: set "
            f"kwargs.feature_dim to what {weights} gives, or delete the file to compute it again."
        )
    return torch.from_numpy(features)


def _digest(captions: Sequence[str], weights: str) -> str:
    """What the features depend on, in 16 digits: captions and the content of the weights."""
    digest = hashlib.sha256()
    if Path(weights).is_file():
        with open(weights, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    else:
        digest.update(weights.encode())
    for caption in captions:
        digest.update(hashlib.sha256(caption.encode()).digest())
    return digest.hexdigest()[:16]


def _save(path: Path, features: np.ndarray) -> None:
    """Write a file that is either complete or not there."""
    temporary = path.with_suffix(".part")
    with open(temporary, "wb") as file:
        np.save(file, features)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


@torch.inference_mode()
def _compute(captions: Sequence[str], weights: str, dim: int) -> np.ndarray:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tower = _load(weights, device)
    found = tower.text_projection.shape[1]
    if found != dim:
        raise DataError(
            f"CLIP's model {weights} gives features of {found} dimensions, not {dim}: set "
            f"kwargs.feature_dim={found}."
        )
    print(f"CLIP {weights}: computing features of {len(captions)} captions on {device}, once.")
    clip = import_clip()
    features = np.empty((len(captions), dim), PRECISION)
    # tqdm draws nothing where nobody watches
    for start in tqdm(range(0, len(captions), BATCH_SIZE), "captions", disable=None):
        batch = list(captions[start : start + BATCH_SIZE])
        tokens = clip.tokenize(batch, context_length=tower.context_length, truncate=True)
        features[start : start + len(batch)] = tower.encode_text(tokens.to(device)).cpu().numpy()
    return features


def _load(weights: str, device: str) -> nn.Module:
    """CLIP's model, on the device."""
    try:
        return load_clip(weights, device)[0]
    except WeightsError as error:
        raise DataError(
            f"kwargs.clip_weights={weights!r}: {error} (kwargs.clip_weights is the name of one of "
            "CLIP's models, or a path.)"
        ) from error
