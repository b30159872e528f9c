"""Small convolutional encoder and its mirror image, for square images."""

import math

from torch import Tensor, nn

from lossyless.architectures.mlp import Shape, activation_named

# Side of the feature map between the convolutions and the linear layer.
CORE_SIDE = 4


def _n_halvings(image_shape: Shape) -> int:
    """How often a square image is halved until its side is `CORE_SIDE`."""
    if len(image_shape) != 3:
        raise ValueError(f"a CNN works on images [C, H, W], not on shape {tuple(image_shape)}")
    _, height, width = image_shape
    n_halvings = math.log2(height / CORE_SIDE)
    if height != width or n_halvings < 1 or n_halvings != int(n_halvings):
        raise ValueError(
            f"a CNN needs square images whose side is a power of two of at least "
            f"{2 * CORE_SIDE}, not {height}x{width}: resize the data or use another architecture"
        )
    return int(n_halvings)


def _channels(hid_dim: int, n_halvings: int) -> list[int]:
    """Channels after each halving: doubled every time, at most fourfold."""
    return [hid_dim * min(2**i, 4) for i in range(n_halvings)]


class CNN(nn.Module):
    """Image to vector: strided convolutions down to 4x4, then linear.

        x [B,C,S,S] -> (conv stride 2, batch norm, activation) x log2(S/4) -> linear -> [B,*out]

    Parameters
    ----------
    in_shape : (C, S, S), S a power of two of at least 8.
    out_shape : shape of one output.
    hid_dim : channels after the first convolution; doubled at each further one, up to fourfold.
    activation : name in `torch.nn`.
    """

    def __init__(
        self, in_shape: Shape, out_shape: Shape, hid_dim: int = 32, activation: str = "ReLU"
    ):
        super().__init__()
        self.out_shape = tuple(out_shape)
        layers: list[nn.Module] = []
        n_in = in_shape[0]
        for n_out in _channels(hid_dim, _n_halvings(in_shape)):
            layers += [
                nn.Conv2d(n_in, n_out, kernel_size=4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(n_out),
                activation_named(activation),
            ]
            n_in = n_out
        self.convolutions = nn.Sequential(*layers)
        self.out = nn.Linear(n_in * CORE_SIDE**2, math.prod(out_shape))

    def forward(self, x: Tensor) -> Tensor:  # [B, C, S, S] -> [B, *out_shape]
        return self.out(self.convolutions(x).flatten(1)).unflatten(1, self.out_shape)


class CNNDecoder(nn.Module):
    """Vector to image: the mirror image of `CNN`. Its output has no activation.

    z [B,*in] -> linear -> 4x4 -> (transposed conv stride 2, ...) x log2(S/4) -> [B,C,S,S]
    """

    def __init__(
        self, in_shape: Shape, out_shape: Shape, hid_dim: int = 32, activation: str = "ReLU"
    ):
        super().__init__()
        widths = _channels(hid_dim, _n_halvings(out_shape))[::-1]
        self.core_shape = (widths[0], CORE_SIDE, CORE_SIDE)
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
