"""Batched affine maps and pixel changes do what torchvision does one image at a time."""

import pytest
import torch
from scipy.stats import ks_2samp
from torchvision.transforms import InterpolationMode, RandomErasing, RandomResizedCrop
from torchvision.transforms.v2 import functional as tvf

from utils.data.equivalences import REGISTRY, warp
from utils.data.equivalences import pixels as pixels_module
from utils.data.equivalences.affine import Crop, OneParameter, crop_matrices
from utils.data.equivalences.augmentation import AFFINE
from utils.data.equivalences.pixels import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
)

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
    """The matrix of a box in pixels, counted from the corner, as torchvision says it."""
    x, y = (left + box_width / 2) / width - 0.5, (top + box_height / 2) / height - 0.5
    fractions = torch.tensor([[x], [y], [box_width / width], [box_height / height]])
    return crop_matrices(*fractions, height, width)


def boxes_of(matrices, height, width):
    """Top, left, height, width [4, n] in pixels of what crops show."""
    x_scale, y_scale = matrices[:, 0, 0], matrices[:, 1, 1]
    box_height, box_width = height / y_scale, width / x_scale
    top = (height - box_height) / 2 - matrices[:, 1, 2] / y_scale
    left = (width - box_width) / 2 - matrices[:, 0, 2] / x_scale
    return torch.stack([top, left, box_height, box_width])


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
def test_affine_maps_agree_with_torchvision(height, width, angle, x, y, shear, scale):
    images = make_images(1, height=height, width=width)
    expected = tvf.affine(
        images,
        angle=angle,
        translate=[x, y],
        scale=scale,
        shear=[shear, 0.0],
        interpolation=InterpolationMode.BILINEAR,
    )
    parameters = {
        "rotation": angle,
        "x_translation": x / width,
        "y_translation": y / height,
        "shear": shear,
        "scale": scale,
    }
    matrix = torch.eye(3)[None]
    for name in AFFINE:
        if name in parameters:
            parameter = torch.tensor([parameters[name]])
            matrix = matrix @ REGISTRY[name].matrix(parameter, height, width)
    assert torch.allclose(warp(images, matrix), expected, atol=1e-4)


@pytest.mark.parametrize("as_what", ["moves", "crops"])
def test_the_identity_changes_nothing(as_what):
    images = make_images()
    assert torch.allclose(
        warp(images, **{as_what: torch.eye(3).expand(5, 3, 3)}), images, atol=1e-5
    )


@pytest.mark.parametrize("name", LIMITS)
def test_parameters_fill_their_documented_range(name):
    assert_spans(REGISTRY[name].draw(10_000, seeded()), *LIMITS[name])


def test_the_limits_of_all_parameters_are_tested():
    assert {name for name, m in AFFINE.items() if isinstance(m, OneParameter)} == set(LIMITS)


@pytest.mark.parametrize(("name", "dim"), [("hflip", -1), ("vflip", -2)])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (15, 96)])
def test_flips_mirror_exactly(name, dim, height, width):
    images = make_images(height=height, width=width)
    matrices = REGISTRY[name].sample(5, height, width, seeded())
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


@pytest.mark.parametrize(
    ("top", "left", "box_height", "box_width"),
    [(0, 0, 16, 20), (0, 0, 9, 12), (5, 7, 11, 13), (4, 3, 8, 8)],
)
def test_crops_agree_with_torchvision(top, left, box_height, box_width):
    height, width = 16, 20
    images = make_images(height=height, width=width)
    box = (top, left, box_height, box_width)
    expected = tvf.resized_crop(images, *box, [height, width], antialias=True)
    result = warp(images, crops=crop_matrix(*box, height, width).expand(5, 3, 3))
    # At an edge inside of the image, torchvision no longer knows what lies beyond.
    rows = slice(2 * (top > 0), height - 2 * (top + box_height < height))
    columns = slice(2 * (left > 0), width - 2 * (left + box_width < width))
    assert torch.allclose(result[..., rows, columns], expected[..., rows, columns], atol=1e-4)


@pytest.mark.parametrize("name", [name for name, m in AFFINE.items() if m.stays_inside])
def test_what_stays_inside_does_not_darken_edges(name):
    images = torch.ones(1_000, 1, 12, 12)
    matrices = REGISTRY[name].sample(1_000, 12, 12, seeded())
    assert torch.allclose(warp(images, crops=matrices), images, atol=1e-5)


def test_crops_see_the_frame_after_the_moves():
    """One interpolation shows what a move by whole pixels and then a crop would show."""
    images = make_images(height=12, width=12)
    moves = torch.eye(3).repeat(5, 1, 1)
    moves[:, :2, 2] = torch.tensor([3.0, -2.0])
    crops = REGISTRY["resize_crop"].sample(5, 12, 12, seeded())
    moved = torch.zeros_like(images)
    moved[..., :-2, 3:] = images[..., 2:, :-3]
    assert torch.allclose(warp(images, moves, crops), warp(moved, crops=crops), atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 30)])
@pytest.mark.parametrize("name", [name for name, m in AFFINE.items() if isinstance(m, Crop)])
def test_boxes_lie_in_the_image_anywhere(name, height, width):
    matrices = REGISTRY[name].sample(20_000, height, width, seeded())
    top, left, box_height, box_width = boxes_of(matrices, height, width)
    assert_spans(top, 0, top.max().item())
    assert_spans(left, 0, left.max().item())
    assert_spans(top + box_height, (top + box_height).min().item(), height)
    assert_spans(left + box_width, (left + box_width).min().item(), width)
    if name == "crop":
        assert torch.allclose(box_height, torch.tensor(7 / 8 * height))
        assert torch.allclose(box_width, torch.tensor(7 / 8 * width))
    else:
        largest_area = min(1.0, 1.4 * height / width)  # that a box of this ratio can have
        assert_spans(box_height * box_width / (height * width), 0.3, largest_area)
        assert_spans(box_width / box_height, 0.7, 1.4)


@pytest.mark.parametrize(("height", "width"), [(1000, 1000), (1000, 2200)])
def test_boxes_are_distributed_as_torchvisions(height, width):
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
def test_where_no_box_fits_the_middle_is_shown(height, width):
    expected = RandomResizedCrop.get_params(torch.empty(1, height, width), [0.3, 1.0], [0.7, 1.4])
    matrices = REGISTRY["resize_crop"].sample(4, height, width, seeded())
    boxes = boxes_of(matrices, height, width)
    assert (boxes == boxes[:, :1]).all()
    assert torch.allclose(boxes[:, 0], torch.tensor(expected).float(), atol=0.5)


@pytest.mark.parametrize("n_channels", [1, 3])
@pytest.mark.parametrize(
    ("adjust", "reference", "values"),
    [
        (adjust_brightness, tvf.adjust_brightness, [0.6, 0.9, 1.0, 1.4]),
        (adjust_contrast, tvf.adjust_contrast, [0.6, 0.9, 1.0, 1.4]),
        (adjust_saturation, tvf.adjust_saturation, [0.6, 0.9, 1.0, 1.4]),
        (adjust_hue, tvf.adjust_hue, [-0.2, 0.0, 0.07, 0.2]),
    ],
)
def test_adjustments_agree_with_torchvision(adjust, reference, values, n_channels):
    images = make_images(len(values), n_channels)
    images[..., 0, 0], images[..., 0, 1] = 0, 1
    images[:, :-1, 0, 2] = images[:, -1:, 0, 2]  # gray
    expected = torch.stack([reference(i, v) for i, v in zip(images, values, strict=True)])
    assert torch.allclose(
        adjust(images, torch.tensor(values)[:, None, None, None]), expected, atol=1e-5
    )


def test_jitter_is_torchvisions_in_a_fixed_order_with_factors_in_their_range(monkeypatch):
    drawn = {}
    names = ["brightness", "contrast", "saturation", "hue"]
    for name in names:
        adjust = getattr(pixels_module, f"adjust_{name}")

        def record(images, factors, name=name, adjust=adjust):
            drawn[name] = factors.flatten()
            return adjust(images, factors)

        monkeypatch.setattr(pixels_module, f"adjust_{name}", record)
    images = make_images(3_000, height=2, width=2)
    result = REGISTRY["color"].change(images, seeded())
    assert list(drawn) == names
    for name in names:
        assert_spans(drawn[name], *((-0.2, 0.2) if name == "hue" else (0.6, 1.4)))
    for i in range(20):
        expected = images[i]
        for name in names:
            expected = getattr(tvf, f"adjust_{name}")(expected, drawn[name][i].item())
        assert torch.allclose(result[i], expected, atol=1e-5)
    assert torch.corrcoef(torch.stack(list(drawn.values()))).triu(1).abs().max() < 0.1


@pytest.mark.parametrize("n_channels", [1, 3])
def test_gray_is_torchvisions(n_channels):
    images = make_images(n_channels=n_channels)
    expected = tvf.rgb_to_grayscale(images, num_output_channels=n_channels)
    assert torch.equal(REGISTRY["gray"].change(images, seeded()), expected)


def test_erasing_blackens_one_box_of_whole_pixels():
    images = make_images(2_000, 2, 12, 16) + 0.1
    result = REGISTRY["erasing"].change(images, seeded())
    is_erased = result == 0
    assert torch.equal(result[~is_erased], images[~is_erased])
    mask = is_erased[:, 0]
    assert torch.equal(mask, is_erased[:, 1])
    rows, columns = mask.any(dim=2), mask.any(dim=1)
    assert torch.equal(mask, rows[:, :, None] & columns[:, None, :])
    for line in (rows, columns):
        n_runs = (line.int().diff(dim=1, prepend=torch.zeros(2_000, 1)) == 1).sum(dim=1)
        assert (n_runs == 1).all()
        assert line[:, 0].any() and line[:, -1].any()


@pytest.mark.parametrize(("height", "width"), [(60, 60), (40, 90)])
def test_erased_boxes_are_distributed_as_torchvisions(height, width):
    image = torch.ones(1, height, width)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [
            RandomErasing.get_params(image, (0.02, 0.33), (0.3, 3.3), [0.0])[:4]
            for _ in range(2_000)
        ]
    is_erased = REGISTRY["erasing"].change(image.expand(2_000, 1, -1, -1), seeded())[:, 0] == 0
    rows, columns = is_erased.any(dim=2).int(), is_erased.any(dim=1).int()
    ours = (rows.argmax(dim=1), columns.argmax(dim=1), rows.sum(dim=1), columns.sum(dim=1))
    for mine, theirs in zip(ours, zip(*drawn, strict=True), strict=True):
        assert_same_distribution(mine, theirs)
