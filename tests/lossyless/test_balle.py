"""Analysis and synthesis transforms: latent images, normalisation, resizing."""

import math

import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from lossyless.architectures import Balle, BalleDecoder

SMALL = {"hid_dim": 8}


def resized(images, side):
    """The result of the reference library."""
    return resize(images, [side, side], InterpolationMode.BILINEAR, antialias=True)


@pytest.mark.parametrize(
    "side, latent_shape",
    [
        (16, (5, 1, 1)),
        (28, (5, 2, 2)),
        (96, (128, 8, 8)),  # STL10 in the paper: z_dim 8192
    ],
)
def test_the_latent_image_has_a_16th_of_the_side(side, latent_shape):
    z_dim = math.prod(latent_shape)
    encoder = Balle((1, side, side), (z_dim,), **SMALL)
    decoder = BalleDecoder((z_dim,), (1, side, side), **SMALL)
    assert encoder.latent_shape == decoder.latent_shape == latent_shape
    z = encoder(torch.rand(2, 1, side, side))
    assert z.shape == (2, z_dim) and decoder(z).shape == (2, 1, side, side)


def test_a_pixel_reaches_only_the_latent_positions_beside_it():
    """The flattened order is [C, s, s], as for `HSpatial`."""
    encoder = Balle((1, 128, 128), (3 * 8 * 8,), **SMALL).double().eval()
    x = torch.rand(1, 1, 128, 128).double()
    moved = x.clone()
    moved[..., 64, 16] += 1
    change = (encoder(moved) - encoder(x)).unflatten(1, encoder.latent_shape)[0]
    rows, columns = (change.abs() > 1e-12).any(0).nonzero().T
    assert set(rows.tolist()) == {3, 4, 5}
    assert set(columns.tolist()) == {0, 1, 2}


def test_images_between_powers_of_two_are_resized_to_the_next_one_and_back():
    small, large = Balle((3, 24, 24), (12,), **SMALL), Balle((3, 32, 32), (12,), **SMALL)
    large.load_state_dict(small.state_dict())
    x = torch.rand(2, 3, 24, 24)
    torch.testing.assert_close(small(x), large(resized(x, 32)))
    small = BalleDecoder((12,), (3, 24, 24), **SMALL)
    large = BalleDecoder((12,), (3, 32, 32), **SMALL)
    large.load_state_dict(small.state_dict())
    z = 10 * torch.randn(2, 12)
    torch.testing.assert_close(small(z), resized(large(z), 24))


def test_an_impossible_z_dim_raises_an_error_with_possible_ones():
    for make in (
        lambda: Balle((3, 96, 96), (100,)),
        lambda: BalleDecoder((100,), (3, 96, 96)),
    ):
        with pytest.raises(ValueError, match="z_dim=100.*64.*8192"):
            make()
