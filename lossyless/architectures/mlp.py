"""Fully connected networks for inputs and outputs of any shape."""

import math

import torch
from torch import Tensor, nn

from lossyless.architectures.layers import BatchNorm, Shape, activation_named, initialize


class Identity(nn.Identity):
    """z = x. Needs `in_shape == out_shape`."""

    def __init__(self, in_shape: Shape, out_shape: Shape):
        super().__init__()
        if tuple(in_shape) != tuple(out_shape):
            raise ValueError(
                f"the identity preserves shapes, but in_shape={tuple(in_shape)} differs from "
                f"out_shape={tuple(out_shape)}: use another architecture or equal shapes"
            )


class Linear(nn.Module):
    """One affine map from all inputs to all outputs."""

    def __init__(self, in_shape: Shape, out_shape: Shape):
        super().__init__()
        self.out_shape = tuple(out_shape)
        self.linear = nn.Linear(math.prod(in_shape), math.prod(out_shape))
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:  # [B, *in_shape] -> [B, *out_shape]
        return self.linear(x.flatten(1)).unflatten(1, self.out_shape)


class MLP(nn.Module):
    """`n_hidden_layers` times (linear, normalisation, activation, dropout), then linear.

    Parameters
    ----------
    in_shape, out_shape : shapes of one example; inputs are flattened.
    hid_dim : units of every hidden layer.
    activation : name in `torch.nn`.
    is_batchnorm : batch normalisation before every activation.
    dropout : probability of dropping a hidden unit.
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        hid_dim: int = 1024,
        n_hidden_layers: int = 2,
        activation: str = "ReLU",
        is_batchnorm: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.out_shape = tuple(out_shape)
        layers: list[nn.Module] = []
        width = math.prod(in_shape)
        for _ in range(n_hidden_layers):
            # batch normalisation would cancel a bias
            layers.append(nn.Linear(width, hid_dim, bias=not is_batchnorm))
            if is_batchnorm:
                layers.append(BatchNorm(hid_dim))
            layers.append(activation_named(activation))
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
            width = hid_dim
        self.hidden = nn.Sequential(*layers)
        self.out = nn.Linear(width, math.prod(out_shape))
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:  # [B, *in_shape] -> [B, *out_shape]
        return self.out(self.hidden(torch.flatten(x, 1))).unflatten(1, self.out_shape)
