"""Residual networks (He et al. 2015, arXiv:1512.03385), from torchvision."""

import math
from collections.abc import Callable

import torch
import torchvision
from torch import Tensor, nn

from lossyless.architectures.layers import BatchNorm, Shape

STEMS = ("auto", "imagenet", "small")
# "auto" chooses "small" for sides below this, including STL10's 96 pixels, as in the paper.
MIN_IMAGENET_SIDE = 100


class ResNet(nn.Module):
    """Image to vector: a torchvision residual network, without pretrained weights.

    Parameters
    ----------
    in_shape : (C, H, W), with any C.
    out_shape : shape of one output.
    base : name in `torchvision.models`, e.g. "resnet18", "resnet50", "wide_resnet50_2".
    stem : layers before the first residual block:
        "imagenet": 7x7 convolution, stride 2, and max pooling, which shrink sides fourfold;
        "small": 3x3 convolution, stride 1 (SimCLR's for CIFAR10, arXiv:2002.05709, appendix B.9);
        "auto": "small" if a side is below 100 pixels.
    """

    def __init__(
        self, in_shape: Shape, out_shape: Shape, base: str = "resnet18", stem: str = "auto"
    ):
        super().__init__()
        if len(in_shape) != 3:
            raise ValueError(f"a ResNet needs images [C, H, W], but the shape is {tuple(in_shape)}")
        names = torchvision.models.list_models(
            module=torchvision.models, include=["resnet*", "resnext*", "wide_resnet*"]
        )
        if base not in names:
            raise ValueError(f"unknown ResNet base {base!r}: choose one of {names}")
        if stem not in STEMS:
            raise ValueError(f"unknown ResNet stem {stem!r}: choose one of {STEMS}")
        self.out_shape = tuple(out_shape)
        n_channels, *sides = in_shape
        if stem == "auto":
            stem = "small" if min(sides) < MIN_IMAGENET_SIDE else "imagenet"
        self.network = torchvision.models.get_model(
            base, weights=None, num_classes=math.prod(out_shape), norm_layer=BatchNorm
        )
        n_out = self.network.conv1.out_channels
        if stem == "small":
            self.network.conv1 = nn.Conv2d(n_channels, n_out, 3, padding=1, bias=False)
            self.network.maxpool = nn.Identity()
        elif n_channels != 3:
            self.network.conv1 = nn.Conv2d(n_channels, n_out, 7, stride=2, padding=3, bias=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ResNet":
        """Like `nn.Module._apply`, but use channels last on a GPU, which speeds up convolutions."""
        super()._apply(fn, recurse)
        if self.network.conv1.weight.is_cuda:
            self.network.to(memory_format=torch.channels_last)
        return self

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W] -> [B, *out_shape]
        return self.network(x).unflatten(1, self.out_shape)
