"""Small convolutional encoder and its mirror image, for square images."""

import math

from torch import Tensor, nn

from lossyless.architectures.mlp import Shape, activation_named

# Sides of the feature map between the convolutions and the linear layer: any side halves to at most
# one of them.
CORE_SIDES = range(4, 8)


def _halvings(image_shape: Shape) -> tuple[int, int]:
    """How often a square image is halved until its side is one of `CORE_SIDES`, and which one."""
    if len(image_shape) != 3:
        raise ValueError(f"a CNN works on images [C, H, W], not on shape {tuple(image_shape)}")
    _, height, width = image_shape
    n_halvings = 0
    core_side = height
    while core_side > max(CORE_SIDES) and core_side % 2 == 0:
        core_side //= 2
        n_halvings += 1
    if height != width or n_halvings < 1 or core_side not in CORE_SIDES:
        raise ValueError(
            f"a CNN needs square images whose side is 4, 5, 6 or 7 doubled at least once (8, 28, "
            f"32, 96, 224, ...), not {height}x{width}: resize the data or use another architecture"
        )
    return n_halvings, core_side


def _channels(hid_dim: int, n_halvings: int) -> list[int]:
    """Channels after each halving: doubled every time, at most fourfold."""
    return [hid_dim * min(2**i, 4) for i in range(n_halvings)]


class CNN(nn.Module):
    """Image to vector: strided convolutions down to a core of 4x4 to 7x7, then linear.

        x [B,C,S,S] -> (conv stride 2, batch norm, activation) x log2(S/core) -> linear -> [B,*out]

    Parameters
    ----------
    in_shape : (C, S, S), S one of 4, 5, 6, 7 times a power of two of at least 2.
    out_shape : shape of one output.
    hid_dim : channels after the first convolution; doubled at each further one, up to fourfold.
    activation : name in `torch.nn`.
    """

    def __init__(
        self, in_shape: Shape, out_shape: Shape, hid_dim: int = 32, activation: str = "ReLU"
    ):
        super().__init__()
        self.out_shape = tuple(out_shape)
        n_halvings, core_side = _halvings(in_shape)
        layers: list[nn.Module] = []
        n_in = in_shape[0]
        for n_out in _channels(hid_dim, n_halvings):
            layers += [
                nn.Conv2d(n_in, n_out, kernel_size=4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(n_out),
                activation_named(activation),
            ]
            n_in = n_out
        self.convolutions = nn.Sequential(*layers)
        self.out = nn.Linear(n_in * core_side**2, math.prod(out_shape))

    def forward(self, x: Tensor) -> Tensor:  # [B, C, S, S] -> [B, *out_shape]
        return self.out(self.convolutions(x).flatten(1)).unflatten(1, self.out_shape)


class CNNDecoder(nn.Module):
    """Vector to image: the mirror image of `CNN`. Its output has no activation.

    z [B,*in] -> linear -> core -> (..., transposed conv stride 2) x log2(S/core) -> [B,C,S,S]
    """

    def __init__(
        self, in_shape: Shape, out_shape: Shape, hid_dim: int = 32, activation: str = "ReLU"
    ):
        super().__init__()
        n_halvings, core_side = _halvings(out_shape)
        widths = _channels(hid_dim, n_halvings)[::-1]
        self.core_shape = (widths[0], core_side, core_side)
        self.linear = nn.Linear(math.prod(in_shape), math.prod(self.core_shape))
        layers: list[nn.Module] = []
        for n_in, n_out in zip(widths, [*widths[1:], out_shape[0]], strict=True):
            layers += [
                nn.BatchNorm2d(n_in),
                activation_named(activation),
                nn.ConvTranspose2d(n_in, n_out, kernel_size=4, stride=2, padding=1),
            ]
        self.convolutions = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:  # [B, *in_shape] -> [B, C, S, S]
        return self.convolutions(self.linear(z.flatten(1)).unflatten(1, self.core_shape))
