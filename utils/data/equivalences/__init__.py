"""Batched augmentations: the groups of transformations that tasks on images are invariant to."""

from utils.data.equivalences.augmentation import REGISTRY, Augmentation
from utils.data.equivalences.warping import warp

__all__ = ["REGISTRY", "Augmentation", "warp"]
