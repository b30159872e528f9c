"""Batched augmentations: transformations that tasks on images are invariant to."""

from utils.data.augmentations.chain import REGISTRY, Augmentation, warp

__all__ = ["REGISTRY", "Augmentation", "warp"]
