"""Pretrained networks that turn images into features, and stay as they are.

`Tower` is their contract. To add one: a class, and `conf/tower/<name>.yaml`. A file of weights is
its argument `weights`: then the content, and not the path, is part of the identity of what is
computed; null stands for the file that the class downloads by itself. A tower without `weights`
must state a `version` in its YAML file, to be raised whenever the class gives other features.
"""

from lossyless.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Tower, precision
from lossyless.backbones.clip import ClipTower
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
    "precision",
]
