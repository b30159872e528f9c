"""Batched augmentations agree with torchvision's, which take one image at a time."""

import pytest
import torch
from helpers.batches import seeded
from scipy.stats import chisquare, ks_2samp
from torchvision.transforms import InterpolationMode, RandomErasing, RandomResizedCrop
from torchvision.transforms.v2 import functional as tvf

from utils.data.augmentations import AFFINE, REGISTRY, Augmentation, warp
from utils.data.augmentations.affine import OneParameter, crop_matrices

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


def make_images(n=5, n_channels=3, height=16, width=16):
    return torch.rand(n, n_channels, height, width, generator=seeded(1))


def assert_spans(values, low, high):
    """All values lie in [low, high], and some near both."""
    tolerance = 0.01 * (high - low)
    assert low - 1e-5 <= values.min() < low + tolerance
    assert high - tolerance < values.max() <= high + 1e-5


def assert_same_distribution(ours, theirs):
    assert ks_2samp(ours.numpy(), torch.as_tensor(theirs).numpy()).pvalue > 0.01


def crop_matrix(top, left, box_height, box_width, height, width):
    """The matrix of a box in torchvision's convention: in pixels, counted from the corner."""
    x, y = (left + box_width / 2) / width - 0.5, (top + box_height / 2) / height - 0.5
    fractions = torch.tensor([[x], [y], [box_width / width], [box_height / height]])
    return crop_matrices(*fractions, height, width)


def boxes_of(matrices, height, width):
    """Top, left, height and width [4, n], in pixels, of the regions that crops show."""
    x_scale, y_scale = matrices[:, 0, 0], matrices[:, 1, 1]
    box_height, box_width = height / y_scale, width / x_scale
    top = (height - box_height) / 2 - matrices[:, 1, 2] / y_scale
    left = (width - box_width) / 2 - matrices[:, 0, 2] / x_scale
    return torch.stack([top, left, box_height, box_width])


AS_TORCHVISION = {  # our parameter as torchvision's affine parameters
    "x_translation": lambda p, height, width: {"translate": [round(p * width), 0]},
    "y_translation": lambda p, height, width: {"translate": [0, round(p * height)]},
    "rotation": lambda p, height, width: {"angle": p},
    "scale": lambda p, height, width: {"scale": p},
    "shear": lambda p, height, width: {"shear": [p, 0.0]},
}


def torchvision_affine(image, name, parameter, mode="nearest"):
    """Apply one affine map to an image [C, H, W] with torchvision."""
    neutral = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    given = AS_TORCHVISION[name](parameter, *image.shape[-2:])
    return tvf.affine(image, **(neutral | given), interpolation=InterpolationMode(mode))


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_affine_maps_agree_with_torchvision(mode):
    parameters = {"rotation": 30.0, "x_translation": 0.1, "y_translation": -0.2}
    for name, parameter in (parameters | {"shear": 20.0, "scale": 0.72}).items():
        for height, width in ((16, 16), (12, 20)):
            images = make_images(1, height=height, width=width)
            matrix = REGISTRY[name].matrix(torch.tensor([parameter]), height, width)
            expected = torchvision_affine(images[0], name, parameter, mode)
            assert torch.allclose(warp(images, [matrix], mode=mode)[0], expected, atol=1e-4)


def test_a_composed_warp_agrees_with_torchvisions_chain_of_nearest_pixels():
    names = ["x_translation", "y_translation", "rotation", "scale", "shear"]
    images = make_images(200, 1, 28, 28)
    parameters = {name: REGISTRY[name].draw(len(images), seeded(k)) for k, name in enumerate(names)}
    expected = images.clone()
    for i in range(len(images)):
        for name in names:
            expected[i] = torchvision_affine(expected[i], name, parameters[name][i].item())
    matrices = [REGISTRY[name].matrix(parameters[name], 28, 28) for name in names[::-1]]
    assert Augmentation(names).affine == [REGISTRY[name] for name in names[::-1]]
    assert ((warp(images, matrices) - expected).abs() > 0.01).float().mean() < 2e-3


def test_parameters_fill_their_documented_range():
    assert {name for name, m in AFFINE.items() if isinstance(m, OneParameter)} == set(LIMITS)
    for name, limits in LIMITS.items():
        assert_spans(REGISTRY[name].draw(10_000, seeded()), *limits)


def test_flips_mirror_exactly():
    images = make_images(height=15, width=96)
    for name, dim in (("hflip", -1), ("vflip", -2)):
        matrices = REGISTRY[name].sample(5, 15, 96, seeded())
        assert torch.allclose(warp(images, crops=matrices), images.flip(dim), atol=1e-5)


@pytest.mark.parametrize("side", [7, 32])
def test_d4_draws_the_eight_symmetries_equally_often(side):
    n = 2_000
    image = make_images(1, 1, side, side)
    result = warp(
        image.expand(n, -1, -1, -1), crops=REGISTRY["D4_group"].sample(n, side, side, seeded())
    )
    turned = [view.rot90(k, (-2, -1)) for view in (image, image.flip(-1)) for k in range(4)]
    is_same = torch.stack([(result - t).abs().amax(dim=(1, 2, 3)) < 1e-5 for t in turned])
    assert (is_same.sum(dim=0) == 1).all()
    assert (is_same.float().mean(dim=1) - 1 / 8).abs().max() < 0.04


def test_crops_agree_with_torchvision():
    height, width = 16, 20
    images = make_images(height=height, width=width)
    for box in ((0, 0, 16, 20), (0, 0, 9, 12), (5, 7, 11, 13), (4, 3, 8, 8)):
        expected = tvf.resized_crop(images, *box, [height, width], antialias=True)
        result = warp(images, (), crop_matrix(*box, height, width).expand(5, 3, 3), "bilinear")
        # torchvision does not see the pixels beyond an edge inside the image
        top, left, box_height, box_width = box
        rows = slice(2 * (top > 0), height - 2 * (top + box_height < height))
        columns = slice(2 * (left > 0), width - 2 * (left + box_width < width))
        assert torch.allclose(result[..., rows, columns], expected[..., rows, columns], atol=1e-4)


def test_flips_and_crops_do_not_darken_edges():
    images = torch.ones(1_000, 1, 12, 12)
    for name in (name for name, member in AFFINE.items() if member.stays_inside):
        matrices = REGISTRY[name].sample(1_000, 12, 12, seeded())
        assert torch.allclose(warp(images, (), matrices, "bilinear"), images, atol=1e-5), name


def test_crops_see_the_frame_after_the_moves():
    """One interpolation gives the same result as a move by whole pixels followed by a crop."""
    images = make_images(height=12, width=12)
    moves = torch.eye(3).repeat(5, 1, 1)
    moves[:, :2, 2] = torch.tensor([3.0, -2.0])
    crops = REGISTRY["resize_crop"].sample(5, 12, 12, seeded())
    moved = torch.zeros_like(images)
    moved[..., :-2, 3:] = images[..., 2:, :-3]
    result, expected = warp(images, [moves], crops, "bilinear"), warp(moved, (), crops, "bilinear")
    assert torch.allclose(result, expected, atol=1e-5)


def test_crops_of_a_fixed_size_lie_anywhere_in_the_image():
    height, width = 20, 30
    matrices = REGISTRY["crop"].sample(20_000, height, width, seeded())
    top, left, box_height, box_width = boxes_of(matrices, height, width)
    assert_spans(top, 0, height / 8)
    assert_spans(left, 0, width / 8)
    assert torch.allclose(box_height, torch.tensor(7 / 8 * height))
    assert torch.allclose(box_width, torch.tensor(7 / 8 * width))


@pytest.mark.parametrize(("height", "width"), [(1000, 1000), (1000, 2200)])
def test_boxes_have_the_distribution_of_torchvision(height, width):
    """At this size, rounding to pixels makes no difference."""
    image = torch.empty(1, height, width)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [RandomResizedCrop.get_params(image, [0.3, 1.0], [0.7, 1.4]) for _ in range(2_000)]
    matrices = REGISTRY["resize_crop"].sample(2_000, height, width, seeded())
    for ours, theirs in zip(
        boxes_of(matrices, height, width), zip(*drawn, strict=True), strict=True
    ):
        assert_same_distribution(ours.round(), theirs)


@pytest.mark.parametrize(("height", "width"), [(10, 100), (100, 10)])
def test_the_centre_is_shown_if_no_box_fits(height, width):
    expected = RandomResizedCrop.get_params(torch.empty(1, height, width), [0.3, 1.0], [0.7, 1.4])
    matrices = REGISTRY["resize_crop"].sample(4, height, width, seeded())
    boxes = boxes_of(matrices, height, width)
    assert (boxes == boxes[:, :1]).all()
    assert torch.allclose(boxes[:, 0], torch.tensor(expected).float(), atol=0.5)


@pytest.mark.parametrize("n_channels", [1, 3])
def test_colour_jitter_agrees_with_torchvision_in_all_orders(n_channels):
    names = ["brightness", "contrast", "saturation", "hue"]
    images, jitter = make_images(3_000, n_channels, height=2, width=2), REGISTRY["color"]
    images[..., 0, 0], images[:, :-1, 0, 1] = 1, images[:, -1:, 0, 1]  # white, gray
    orders, deviations = jitter.draw(len(images), seeded())
    result = jitter.change(images, seeded())
    for name, drawn in zip(names, deviations.T, strict=True):
        assert_spans(drawn, *((-0.2, 0.2) if name == "hue" else (-0.4, 0.4)))
    assert torch.corrcoef(deviations.T).triu(1).abs().max() < 0.1
    kinds, counts = orders.unique(dim=0, return_counts=True)
    assert len(kinds) == 24 and chisquare(counts).pvalue > 0.01
    for i in range(200):
        expected = images[i]
        for k in orders[i]:
            amount = deviations[i, k].item() + (names[k] != "hue")
            expected = getattr(tvf, f"adjust_{names[k]}")(expected, amount)
        assert torch.allclose(result[i], expected, atol=1e-5)
    gray = tvf.rgb_to_grayscale(images, num_output_channels=n_channels)
    assert torch.equal(REGISTRY["gray"].change(images, seeded()), gray)


@pytest.mark.parametrize(("height", "width"), [(60, 60), (40, 90)])
def test_erased_boxes_have_the_distribution_of_torchvision(height, width):
    image = torch.ones(1, height, width)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [
            RandomErasing.get_params(image, (0.02, 0.33), (0.3, 3.3), [0.0])[:4]
            for _ in range(2_000)
        ]
    erased = REGISTRY["erasing"].change(image.expand(2_000, 2, -1, -1), seeded())
    mask = erased[:, 0] == 0.5
    rows, columns = mask.any(dim=2), mask.any(dim=1)
    assert torch.equal(mask, rows[:, :, None] & columns[:, None, :])
    assert torch.equal(erased, torch.where(mask, 0.5, 1.0)[:, None].expand_as(erased))
    rows, columns = rows.int(), columns.int()
    ours = (rows.argmax(dim=1), columns.argmax(dim=1), rows.sum(dim=1), columns.sum(dim=1))
    for mine, theirs in zip(ours, zip(*drawn, strict=True), strict=True):
        assert_same_distribution(mine, theirs)
    for line in (rows, columns):  # one run of pixels
        assert ((line.diff(dim=1, prepend=torch.zeros(2_000, 1)) == 1).sum(dim=1) <= 1).all()
