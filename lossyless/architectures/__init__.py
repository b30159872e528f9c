"""Networks with the signature `Architecture(in_shape, out_shape, **options)`.

`in_shape` and `out_shape` are shapes of one example, so the same class serves as encoder, decoder,
online evaluator or predictor. An experiment chooses an architecture and its options; the code that
uses the architecture provides the shapes.

To add one, write the class and add `conf/architecture/<name>.yaml`.
"""

from collections.abc import Callable

from torch import nn

from lossyless.architectures.balle import Balle, BalleDecoder
from lossyless.architectures.cnn import CNN, CNNDecoder
from lossyless.architectures.layers import Standardize
from lossyless.architectures.mlp import MLP, Identity, Linear
from lossyless.architectures.resnet import ResNet

Architecture = Callable[..., nn.Module]

__all__ = [
    "Architecture",
    "Balle",
    "BalleDecoder",
    "CNN",
    "CNNDecoder",
    "Identity",
    "Linear",
    "MLP",
    "ResNet",
    "Standardize",
]
