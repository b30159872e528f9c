"""Pretrained networks that turn images into features, and stay as they are.

`Tower` is their contract. To add one: a class, and `conf/tower/<name>.yaml`.
"""

from lossyless.towers.base import IMAGENET_MEAN, IMAGENET_STD, Tower
from lossyless.towers.clip import ClipTower
from lossyless.towers.open_clip import OpenClipTower
from lossyless.towers.self_supervised import SimCLRTower, SwAVTower
from lossyless.towers.torchvision import TorchvisionTower

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "ClipTower",
    "OpenClipTower",
    "SimCLRTower",
    "SwAVTower",
    "TorchvisionTower",
    "Tower",
]
