"""Analysis and synthesis transforms for learned image compression, as in the paper.

Balle et al. 2018, arXiv:1802.01436: four strided convolutions and their mirror image, with batch
normalisation and ReLU instead of generalised divisive normalisation. The representation is a
flattened latent image [C, S/16, S/16], for the rate `HSpatial`.
"""

import math

from torch import Tensor, nn

from lossyless.architectures.layers import BatchNorm, Shape, initialize, power_of_two_side, resize

DOWNSAMPLING = 16  # four convolutions with stride 2


def latent_side(image_shape: Shape) -> int:
    """Side of the latent image for images [C, S, S]."""
    side = power_of_two_side(image_shape, "the Balle transforms", least=DOWNSAMPLING)
    return side // DOWNSAMPLING


def _latent_shape(image_shape: Shape, z_dim: int) -> tuple[int, int, int]:
    """Shape [C, s, s] of a latent image with z_dim values."""
    side = latent_side(image_shape)
    if z_dim < 1 or z_dim % side**2:
        raise ValueError(
            f"z_dim={z_dim} cannot be reshaped to a latent image of {side}x{side} positions, as "
            f"needed for images {tuple(image_shape)}: choose a multiple of {side**2}, e.g. "
            f"{128 * side**2} for 128 channels"
        )
    return z_dim // side**2, side, side


class Balle(nn.Module):
    """Image to flattened latent image: the analysis transform.

        x [B,C,S,S] -> (conv 5x5 stride 2, batch norm, ReLU) x 3 -> conv 5x5 stride 2 -> flatten

    Parameters
    ----------
    in_shape : (C, S, S), S above 8; images are resized to the next power of two.
    out_shape : its product, z_dim, must be a multiple of the number of positions of the latent
        image, (side / 16)^2 for the resized side.
    hid_dim : channels between the convolutions.
    """

    def __init__(self, in_shape: Shape, out_shape: Shape, hid_dim: int = 256):
        super().__init__()
        self.out_shape = tuple(out_shape)
        #: (channels, side, side) of the latent image
        self.latent_shape = _latent_shape(in_shape, math.prod(out_shape))
        self.side = DOWNSAMPLING * self.latent_shape[-1]
        layers: list[nn.Module] = []
        n_in = in_shape[0]
        for _ in range(3):
            layers += [_downsampling(n_in, hid_dim, bias=False), *_normalized(hid_dim)]
            n_in = hid_dim
        self.analysis = nn.Sequential(*layers, _downsampling(hid_dim, self.latent_shape[0]))
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:  # [B, C, S, S] -> [B, *out_shape]
        images = resize(x, self.side, antialias=True)
        return self.analysis(images).flatten(1).unflatten(1, self.out_shape)


class BalleDecoder(nn.Module):
    """Flattened latent image to image: the synthesis transform, the mirror image of `Balle`.

        z [B,*in] -> (transposed conv 5x5 stride 2, batch norm, ReLU) x 3 -> transposed conv

    The output has no activation. Its side is a power of two, so it is resized to S.

    Parameters: see `Balle`, with in_shape and out_shape exchanged.
    """

    def __init__(self, in_shape: Shape, out_shape: Shape, hid_dim: int = 256):
        super().__init__()
        self.side = out_shape[-1]
        self.latent_shape = _latent_shape(out_shape, math.prod(in_shape))
        layers: list[nn.Module] = []
        n_in = self.latent_shape[0]
        for _ in range(3):
            layers += [_upsampling(n_in, hid_dim, bias=False), *_normalized(hid_dim)]
            n_in = hid_dim
        self.synthesis = nn.Sequential(*layers, _upsampling(hid_dim, out_shape[0]))
        initialize(self)

    def forward(self, z: Tensor) -> Tensor:  # [B, *in_shape] -> [B, C, S, S]
        images = self.synthesis(z.flatten(1).unflatten(1, self.latent_shape))
        return resize(images, self.side, antialias=True)


def _normalized(n_channels: int) -> list[nn.Module]:
    return [BatchNorm(n_channels), nn.ReLU()]


def _downsampling(n_in: int, n_out: int, bias: bool = True) -> nn.Module:
    return nn.Conv2d(n_in, n_out, kernel_size=5, stride=2, padding=2, bias=bias)


def _upsampling(n_in: int, n_out: int, bias: bool = True) -> nn.Module:
    return nn.ConvTranspose2d(n_in, n_out, 5, stride=2, padding=2, output_padding=1, bias=bias)
