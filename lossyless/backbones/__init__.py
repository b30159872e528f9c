"""Frozen pretrained networks that turn images into features.

`Tower` is the base class. To add one, write a class and `conf/tower/<name>.yaml`. Pass a weights
file as `weights`; the features are then identified by its content rather than its path. `null`
means the file the class downloads. A tower without `weights` must state a `version` in its YAML
file, to be raised whenever the class returns other features.
"""

from lossyless.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Tower, precision
from lossyless.backbones.clip import ClipTower, load_clip
from lossyless.backbones.open_clip import OpenClipTower
from lossyless.backbones.self_supervised import SimCLRTower, SwAVTower
from lossyless.backbones.torchvision import TorchvisionTower

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "ClipTower",
    "OpenClipTower",
    "SimCLRTower",
    "SwAVTower",
    "TorchvisionTower",
    "Tower",
    "load_clip",
    "precision",
]
