"""COCO 2017 images (Lin et al. 2014, https://arxiv.org/abs/1405.0312)."""

from pathlib import Path

import torch

from utils.data.coco_captions import (
    HOW_TO_RESTORE,
    YEARS,
    caption_features,
    find,
    read_captions,
)
from utils.data.examples import ImageFiles
from utils.data.images import ImageDataModule
from utils.data.sources import Source

SIZES = {"train": 118_287, "test": 5_000}


def coco(
    *,
    is_caption_target: bool = False,
    clip_weights: str = "ViT-B/32",
    feature_dim: int = 512,
    **kwargs: object,
) -> ImageDataModule:
    """Photographs of everyday scenes: 118,287 training images and 5,000 test images (val2017).

    There are no classes.

    Parameters
    ----------
    is_caption_target : whether the target is the mean CLIP feature of the image's captions, float32
        [B, feature_dim]. Otherwise, the target is empty, [B, 0], and CLIP's text tower is not
        needed; the compressor must then be trained without a probe
        (`featurizer.kwargs.online=null`).
    clip_weights, feature_dim : weights and feature dimensionality of the text tower; see
        `caption_features`.
    kwargs : see `ImageDataModule`.
    """
    dim = feature_dim if is_caption_target else 0

    def open_split(folder: Path, split: str) -> ImageFiles:
        captions = read_captions(folder, split)
        targets = torch.zeros(len(captions.files), 0)
        if dim:
            features = caption_features(
                captions.texts, weights=clip_weights, dim=dim, folder=folder
            )
            targets = captions.mean(features)
        images = find(folder, YEARS[split])
        return ImageFiles([images / name for name in captions.files], targets).on_disk()

    source = Source(
        "Coco",
        lambda data_dir: {split: open_split(data_dir / "coco", split) for split in YEARS},
        n_outputs=dim,
        sizes=SIZES,
        task="regression",
        how_to_restore=HOW_TO_RESTORE,
    )
    return ImageDataModule(source, **kwargs)
