"""Batched augmentation does what torchvision does one image at a time."""

import math

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tvf

from utils.data.equivalences import REGISTRY, Augmentation, warp

AFFINE = ["rotation", "x_translation", "y_translation", "shear", "scale"]
LIMITS = {
    "rotation": (-45, 45),
    "rotation--": (-15, 15),
    "x_translation": (-0.25, 0.25),
    "x_translation--": (-0.15, 0.15),
    "y_translation": (-0.25, 0.25),
    "y_translation--": (-0.15, 0.15),
    "shear": (-25, 25),
    "shear--": (-15, 15),
    "scale": (0.6, 1.4),
    "scale--": (0.8, 1.2),
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make_images(n=5, n_channels=2, height=16, width=16):
    return torch.rand(n, n_channels, height, width, generator=seeded(1))


def matrix_of(height, width, **parameters):
    matrix = torch.eye(3)[None]
    for name, member in REGISTRY.items():
        if name in parameters:
            matrix = matrix @ member.matrix(torch.tensor([parameters[name]]), height, width)
    return matrix


@pytest.mark.parametrize(("height", "width"), [(16, 16), (12, 20)])
@pytest.mark.parametrize(
    ("angle", "x", "y", "shear", "scale"),
    [
        (30.0, 0, 0, 0.0, 1.0),
        (0.0, 2, 0, 0.0, 1.0),
        (0.0, 0, -3, 0.0, 1.0),
        (0.0, 0, 0, 20.0, 1.0),
        (0.0, 0, 0, 0.0, 0.7),
        (-40.0, 3, -1, 15.0, 1.3),
    ],
)
def test_known_parameters_agree_with_torchvision(height, width, angle, x, y, shear, scale):
    images = make_images(1, height=height, width=width)
    expected = tvf.affine(
        images[0],
        angle=angle,
        translate=[x, y],
        scale=scale,
        shear=[shear, 0.0],
        interpolation=InterpolationMode.BILINEAR,
    )
    matrix = matrix_of(
        height,
        width,
        rotation=angle,
        x_translation=x / width,
        y_translation=y / height,
        shear=shear,
        scale=scale,
    )
    assert torch.allclose(warp(images, matrix)[0], expected, atol=1e-4)


def test_the_identity_changes_nothing():
    images = make_images()
    parameters = {name: member.identity for name, member in REGISTRY.items()}
    assert torch.equal(matrix_of(16, 16, **parameters), torch.eye(3)[None])
    assert torch.allclose(warp(images, torch.eye(3).expand(5, 3, 3)), images, atol=1e-5)


def test_without_members_or_probability_the_input_comes_back_exactly():
    images = make_images()
    assert torch.equal(Augmentation(AFFINE, p_augment=0.0)(images, seeded()), images)
    assert torch.equal(Augmentation([])(images, seeded()), images)


@pytest.mark.parametrize("name", REGISTRY)
def test_parameters_fill_their_documented_range(name):
    low, high = LIMITS[name]
    parameters = REGISTRY[name].draw(10_000, seeded())
    assert low <= parameters.min() < low + 0.01 * (high - low)
    assert high - 0.01 * (high - low) < parameters.max() <= high


@pytest.mark.parametrize("p_augment", [0.2, 1.0])
def test_each_member_is_applied_with_its_probability_independently(p_augment):
    n = 20_000
    augmentation = Augmentation(["x_translation", "y_translation"], p_augment)
    is_moved = augmentation.draw_matrices(n, 16, 16, seeded())[:, :2, 2] != 0
    margin = 5 * math.sqrt(p_augment * (1 - p_augment) / n) + 1e-9
    assert (is_moved.float().mean(dim=0) - p_augment).abs().max() <= margin
    assert abs(is_moved.all(dim=1).float().mean() - p_augment**2) <= margin


def test_the_generator_determines_the_result():
    images, augmentation = make_images(), Augmentation(AFFINE)
    result = augmentation(images, seeded(3))
    assert torch.equal(result, augmentation(images, seeded(3)))
    assert not torch.equal(result, augmentation(images, seeded(4)))


def test_the_order_of_the_names_does_not_matter():
    images = make_images()
    result = Augmentation(AFFINE)(images, seeded())
    assert torch.equal(result, Augmentation(AFFINE[::-1])(images, seeded()))


def test_a_batch_is_augmented_as_its_images_one_by_one():
    images = make_images()
    matrices = Augmentation(AFFINE, p_augment=0.7).draw_matrices(5, 16, 16, seeded())
    one_by_one = [warp(images[i : i + 1], matrices[i : i + 1]) for i in range(5)]
    assert torch.allclose(warp(images, matrices), torch.cat(one_by_one), atol=1e-5)


def test_images_keep_shape_and_range_and_get_different_transformations():
    images = make_images(1).expand(50, -1, -1, -1)
    result = Augmentation(AFFINE)(images, seeded())
    assert result.shape == images.shape
    assert result.min() >= 0 and result.max() <= 1
    assert (result[1:] != result[:1]).flatten(1).any(dim=1).all()


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="rotate.*rotation--"):
        Augmentation(["rotation", "rotate"])
    with pytest.raises(ValueError, match="p_augment"):
        Augmentation(["rotation"], p_augment=1.5)
