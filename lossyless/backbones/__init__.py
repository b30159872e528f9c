"""Frozen pretrained networks that turn images into features.

To add one, write a subclass of `Backbone` and `conf/tower/<name>.yaml`. Features are identified by
the content of the file passed as `weights`, not by its path; `null` means the file that the class
downloads. A backbone without `weights` must state a `version` in its YAML file, to be incremented
whenever its features change.
"""

from lossyless.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Backbone, precision
from lossyless.backbones.clip import ClipBackbone, OpenClipBackbone, load_clip
from lossyless.backbones.self_supervised import SimCLRBackbone, SwAVBackbone
from lossyless.backbones.torchvision import TorchvisionBackbone

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "ClipBackbone",
    "OpenClipBackbone",
    "SimCLRBackbone",
    "SwAVBackbone",
    "TorchvisionBackbone",
    "Backbone",
    "load_clip",
    "precision",
]
