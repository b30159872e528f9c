"""Analysis and synthesis transforms of learnt image compression.

Balle et al. 2018, arXiv:1802.01436: four strided convolutions with generalised divisive
normalisation (GDN, arXiv:1511.06281) in between, and their mirror image. The representation is a
latent image [C, S/16, S/16], flattened; `HSpatial` is its rate.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossyless._compressai import GDN
from lossyless.architectures.mlp import Shape

# Four convolutions of stride 2.
DOWNSAMPLING = 16


def _internal_side(image_shape: Shape) -> int:
    """Side at which the convolutions work: the next power of two."""
    if len(image_shape) != 3:
        raise ValueError(
            f"the Balle transforms work on images [C, H, W], not on shape {tuple(image_shape)}"
        )
    _, height, width = image_shape
    side = 1 << (height - 1).bit_length()
    if height != width or side < DOWNSAMPLING:
        raise ValueError(
            f"the Balle transforms need square images with a side above {DOWNSAMPLING // 2}, not "
            f"{height}x{width}: resize the data or use another architecture"
        )
    return side


def latent_side(image_shape: Shape) -> int:
    """Side of the latent image of images [C, S, S]."""
    return _internal_side(image_shape) // DOWNSAMPLING


def _latent_shape(image_shape: Shape, z_dim: int) -> tuple[int, int, int]:
    """Shape [C, s, s] of the latent image with z_dim values."""
    side = latent_side(image_shape)
    if z_dim < 1 or z_dim % side**2:
        raise ValueError(
            f"z_dim={z_dim} does not fill a latent image of {side}x{side} positions, that of "
            f"images {tuple(image_shape)}: choose a multiple of {side**2}, e.g. {128 * side**2} "
            "for 128 channels"
        )
    return z_dim // side**2, side, side


def _resized(images: Tensor, side: int) -> Tensor:
    """Images [B, C, side, side], bilinear and without aliasing; as they are if they fit."""
    if images.shape[-1] == side:
        return images
    # in 16 bits it is either unsupported or coarse, depending on the device
    images = images.to(torch.promote_types(images.dtype, torch.float32))
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)


class _SafeGDN(GDN):
    """GDN under autocast: its sums of squares overflow in 16 bits, so it keeps to the precision of
    its parameters."""

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W]
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(self.beta.dtype))


class Balle(nn.Module):
    """Image to flattened latent image: the analysis transform.

        x [B,C,S,S] -> (conv 5x5 stride 2, GDN) x 3 -> conv 5x5 stride 2 -> flatten -> [B,*out]

    Parameters
    ----------
    in_shape : (C, S, S), S above 8; a side that is no power of two is resized to the next one.
    out_shape : its product, z_dim, must be a multiple of the positions of the latent image:
        (side / 16)^2 of the resized side.
    hid_dim : channels between the convolutions.

    Attributes
    ----------
    latent_shape : (channels, side, side) of the latent image.
    """

    def __init__(self, in_shape: Shape, out_shape: Shape, hid_dim: int = 128):
        super().__init__()
        self.out_shape = tuple(out_shape)
        self.side = _internal_side(in_shape)
        self.latent_shape = _latent_shape(in_shape, math.prod(out_shape))
        layers: list[nn.Module] = []
        n_in = in_shape[0]
        for _ in range(3):
            layers += [_downsampling(n_in, hid_dim), _SafeGDN(hid_dim)]
            n_in = hid_dim
        self.analysis = nn.Sequential(*layers, _downsampling(hid_dim, self.latent_shape[0]))

    def forward(self, x: Tensor) -> Tensor:  # [B, C, S, S] -> [B, *out_shape]
        return self.analysis(_resized(x, self.side)).flatten(1).unflatten(1, self.out_shape)


class BalleDecoder(nn.Module):
    """Flattened latent image to image: the synthesis transform, mirror image of `Balle`.

        z [B,*in] -> (transposed conv 5x5 stride 2, inverse GDN) x 3 -> transposed conv -> [B,C,S,S]

    Its output has no activation; one at a power of two is resized to S.

    Parameters and attributes are those of `Balle`, with in_shape and out_shape exchanged.
    """

    def __init__(self, in_shape: Shape, out_shape: Shape, hid_dim: int = 128):
        super().__init__()
        self.side = out_shape[-1]
        self.latent_shape = _latent_shape(out_shape, math.prod(in_shape))
        layers: list[nn.Module] = []
        n_in = self.latent_shape[0]
        for _ in range(3):
            layers += [_upsampling(n_in, hid_dim), _SafeGDN(hid_dim, inverse=True)]
            n_in = hid_dim
        self.synthesis = nn.Sequential(*layers, _upsampling(hid_dim, out_shape[0]))

    def forward(self, z: Tensor) -> Tensor:  # [B, *in_shape] -> [B, C, S, S]
        return _resized(self.synthesis(z.flatten(1).unflatten(1, self.latent_shape)), self.side)


def _downsampling(n_in: int, n_out: int) -> nn.Module:
    return nn.Conv2d(n_in, n_out, kernel_size=5, stride=2, padding=2)


def _upsampling(n_in: int, n_out: int) -> nn.Module:
    return nn.ConvTranspose2d(n_in, n_out, kernel_size=5, stride=2, padding=2, output_padding=1)
