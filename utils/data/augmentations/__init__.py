"""Batched augmentations: the groups of transformations that tasks on images are invariant to."""

from utils.data.augmentations.chain import REGISTRY, Augmentation
from utils.data.augmentations.warping import warp

__all__ = ["REGISTRY", "Augmentation", "warp"]
