"""A small convolutional encoder for square images, and its mirror image."""

import math

from torch import Tensor, nn

from lossyless.architectures.layers import (
    BatchNorm,
    Shape,
    activation_named,
    initialize,
    power_of_two_side,
    resize,
)

CORE_SIDE = 2  # side of the feature map between the convolutions and the linear layer


def _sides_and_channels(image_shape: Shape, hid_dim: int) -> tuple[int, list[int]]:
    """Side that images are resized to, and number of channels after each halving of that side."""
    side = power_of_two_side(image_shape, "a CNN", least=2 * CORE_SIDE)
    return side, [hid_dim * 2**i for i in range((side // CORE_SIDE).bit_length() - 1)]


class CNN(nn.Module):
    """Image to vector: strided convolutions down to a 2x2 core, then a linear layer.

        x [B,C,S,S] -> (conv 3x3 stride 2, batch norm, activation) x log2(S/2) -> linear -> [B,*out]

    Parameters
    ----------
    in_shape : (C, S, S), S above 2; images are resized to the next power of two.
    out_shape : shape of one output.
    hid_dim : channels after the first convolution; each later one doubles them.
    activation : name in `torch.nn`.
    """

    def __init__(
        self, in_shape: Shape, out_shape: Shape, hid_dim: int = 32, activation: str = "ReLU"
    ):
        super().__init__()
        self.out_shape = tuple(out_shape)
        self.side, channels = _sides_and_channels(in_shape, hid_dim)
        layers: list[nn.Module] = []
        for n_in, n_out in zip([in_shape[0], *channels], channels, strict=False):
            layers += [
                nn.Conv2d(n_in, n_out, kernel_size=3, stride=2, padding=1, bias=False),
                BatchNorm(n_out),
                activation_named(activation),
            ]
        self.convolutions = nn.Sequential(*layers)
        self.out = nn.Linear(channels[-1] * CORE_SIDE**2, math.prod(out_shape))
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:  # [B, C, S, S] -> [B, *out_shape]
        core = self.convolutions(resize(x, self.side))
        return self.out(core.flatten(1)).unflatten(1, self.out_shape)


class CNNDecoder(nn.Module):
    """Vector to image: the mirror image of `CNN`, without an output activation.

        z [B,*in] -> linear -> core [B,.,2,2]
            -> (batch norm, activation, transposed conv 3x3 stride 2) x log2(S/2) -> [B,C,S,S]

    The side of the last feature map is a power of two. It is resized to S without antialiasing, as
    in the paper's code (e.g. from 128 to 96 pixels). Parameters: see `CNN`, with in_shape and
    out_shape exchanged.
    """

    def __init__(
        self, in_shape: Shape, out_shape: Shape, hid_dim: int = 32, activation: str = "ReLU"
    ):
        super().__init__()
        self.side = out_shape[-1]
        _, channels = _sides_and_channels(out_shape, hid_dim)
        channels = channels[::-1]
        self.core_shape = (channels[0], CORE_SIDE, CORE_SIDE)
        # the batch normalisation that follows would cancel a bias
        self.linear = nn.Linear(math.prod(in_shape), math.prod(self.core_shape), bias=False)
        layers: list[nn.Module] = []
        for n_in, n_out in zip(channels, [*channels[1:], out_shape[0]], strict=True):
            is_last = n_in == channels[-1]
            layers += [
                BatchNorm(n_in),
                activation_named(activation),
                nn.ConvTranspose2d(
                    n_in, n_out, 3, stride=2, padding=1, output_padding=1, bias=is_last
                ),
            ]
        self.convolutions = nn.Sequential(*layers)
        initialize(self)

    def forward(self, z: Tensor) -> Tensor:  # [B, *in_shape] -> [B, C, S, S]
        core = self.linear(z.flatten(1)).unflatten(1, self.core_shape)
        return resize(self.convolutions(core), self.side)
