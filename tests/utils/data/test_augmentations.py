"""Batched affine maps and pixel changes do what torchvision does one image at a time."""

from functools import partial

import pytest
import torch
from scipy.stats import chisquare, ks_2samp
from torchvision.transforms import InterpolationMode, RandomErasing, RandomResizedCrop
from torchvision.transforms.v2 import functional as tvf

from utils.data.augmentations import REGISTRY, Augmentation, warp
from utils.data.augmentations.affine import Crop, OneParameter, crop_matrices
from utils.data.augmentations.chain import AFFINE
from utils.data.augmentations.pixels import BRIGHTNESS, CONTRAST, SATURATION, adjust_hue, blend

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


AS_TORCHVISION = {  # a parameter of ours as those of torchvision's affine
    "x_translation": lambda p, height, width: {"translate": [round(p * width), 0]},
    "y_translation": lambda p, height, width: {"translate": [0, round(p * height)]},
    "rotation": lambda p, height, width: {"angle": p},
    "scale": lambda p, height, width: {"scale": p},
    "shear": lambda p, height, width: {"shear": [p, 0.0]},
}


def torchvision_affine(image, name, parameter, mode="nearest"):
    """One map of an image [C, H, W] by torchvision."""
    neutral = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    given = AS_TORCHVISION[name](parameter, *image.shape[-2:])
    return tvf.affine(image, **(neutral | given), interpolation=InterpolationMode(mode))


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (12, 20)])
@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        ("rotation", 30.0),
        ("x_translation", 2 / 20),
        ("y_translation", -3 / 16),
        ("shear", 20.0),
        ("scale", 0.72),
        ("scale", 1.3),
    ],
)
def test_affine_maps_agree_with_torchvision(height, width, name, parameter, mode):
    images = make_images(1, height=height, width=width)
    matrix = REGISTRY[name].matrix(torch.tensor([parameter]), height, width)
    expected = torchvision_affine(images[0], name, parameter, mode)
    assert torch.allclose(warp(images, [matrix], mode=mode)[0], expected, atol=1e-4)


def strokes(n, side=28):
    """Gray strokes as wide as those of MNIST, up to 20 pixels long, in the middle of the image."""
    generator = seeded(3)
    ends = (torch.rand(n, 3, 2, 1, 1, generator=generator) - 0.5) * 20
    x = torch.arange(side) - (side - 1) / 2
    pixels = torch.stack([x.expand(side, side), x[:, None].expand(side, side)])
    distances = []
    for start, end in zip(ends.unbind(1), ends.roll(1, 1).unbind(1), strict=True):
        step = end - start
        along = ((pixels - start) * step).sum(1, keepdim=True) / step.square().sum(1, keepdim=True)
        distances.append((pixels - start - along.clamp(0, 1) * step).norm(dim=1))
    ink = (2 - torch.stack(distances).amin(0)).clamp(0, 1)
    return (255 * ink[:, None]).round().to(torch.uint8)


def summaries(images):
    """Mean ink, spread of the centroids of x and y, and the least cross-entropy of the pixels."""
    side = images.shape[-1]
    mass, x = images.sum((1, 2, 3)), torch.arange(side) - (side - 1) / 2
    has_ink = mass > 1
    centroids = torch.stack([(images.sum((1, d)) * x).sum(1) for d in (2, 3)], 1)[has_ink]
    spread = (centroids / mass[has_ink, None]).std(0)
    entropy = -(torch.xlogy(images, images) + torch.xlogy(1 - images, 1 - images))
    return torch.stack([images.mean(), *spread, entropy.sum((1, 2, 3)).mean()])


def test_augmented_digits_are_those_of_torchvision_s_chain():
    """Nearest pixels of the original image, one map after the other; only then it is resized."""
    names = ["x_translation", "y_translation", "rotation", "scale", "shear"]
    images = strokes(400)
    parameters = {name: REGISTRY[name].draw(len(images), seeded(k)) for k, name in enumerate(names)}
    chain = []
    for i, image in enumerate(images):
        for name in names:
            image = torchvision_affine(image, name, parameters[name][i].item())
        chain.append(tvf.resize(image, [32, 32], antialias=True))
    expected = torch.stack(chain).float() / 255

    members = Augmentation(names).affine  # the last one acts first
    matrices = [
        member.matrix(parameters[name], 28, 28)
        for member in members
        for name in names
        if REGISTRY[name] is member
    ]
    found = tvf.resize(warp(images.float() / 255, matrices), [32, 32], antialias=True)
    assert ((found - expected).abs() > 0.01).float().mean() < 1e-3
    torch.testing.assert_close(summaries(found), summaries(expected), rtol=0.01, atol=0)
    # which the check would not say of interpolated pixels
    smooth = tvf.resize(warp(images.float() / 255, matrices, mode="bilinear"), [32, 32])
    assert summaries(smooth)[-1] > 1.05 * summaries(expected)[-1]


@pytest.mark.parametrize("moves", [True, False])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_the_identity_changes_nothing(moves, mode):
    images, identity = make_images(), torch.eye(3).expand(5, 3, 3)
    result = warp(images, [identity] * 2, mode=mode) if moves else warp(images, (), identity, mode)
    assert torch.allclose(result, images, atol=1e-5)


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
    result = warp(images, (), crop_matrix(*box, height, width).expand(5, 3, 3), "bilinear")
    # At an edge inside of the image, torchvision no longer knows what lies beyond.
    rows = slice(2 * (top > 0), height - 2 * (top + box_height < height))
    columns = slice(2 * (left > 0), width - 2 * (left + box_width < width))
    assert torch.allclose(result[..., rows, columns], expected[..., rows, columns], atol=1e-4)


@pytest.mark.parametrize("name", [name for name, m in AFFINE.items() if m.stays_inside])
def test_what_stays_inside_does_not_darken_edges(name):
    images = torch.ones(1_000, 1, 12, 12)
    matrices = REGISTRY[name].sample(1_000, 12, 12, seeded())
    assert torch.allclose(warp(images, (), matrices, "bilinear"), images, atol=1e-5)


def test_crops_see_the_frame_after_the_moves():
    """One interpolation shows what a move by whole pixels and then a crop would show."""
    images = make_images(height=12, width=12)
    moves = torch.eye(3).repeat(5, 1, 1)
    moves[:, :2, 2] = torch.tensor([3.0, -2.0])
    crops = REGISTRY["resize_crop"].sample(5, 12, 12, seeded())
    moved = torch.zeros_like(images)
    moved[..., :-2, 3:] = images[..., 2:, :-3]
    result, expected = warp(images, [moves], crops, "bilinear"), warp(moved, (), crops, "bilinear")
    assert torch.allclose(result, expected, atol=1e-5)


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
        (partial(blend, kinds=torch.tensor(BRIGHTNESS)), tvf.adjust_brightness, [0.6, 0.9, 1, 1.4]),
        (partial(blend, kinds=torch.tensor(CONTRAST)), tvf.adjust_contrast, [0.6, 0.9, 1, 1.4]),
        (partial(blend, kinds=torch.tensor(SATURATION)), tvf.adjust_saturation, [0.6, 0.9, 1, 1.4]),
        (adjust_hue, tvf.adjust_hue, [-0.2, 0.0, 0.07, 0.2]),
    ],
)
def test_adjustments_agree_with_torchvision(adjust, reference, values, n_channels):
    images = make_images(len(values), n_channels)
    images[..., 0, 0], images[..., 0, 1] = 0, 1
    images[:, :-1, 0, 2] = images[:, -1:, 0, 2]  # gray
    expected = torch.stack([reference(i, v) for i, v in zip(images, values, strict=True)])
    amount = "turns" if adjust is adjust_hue else "factors"
    found = adjust(images, **{amount: torch.tensor(values)})
    assert torch.allclose(found, expected, atol=1e-5)


def test_jitter_is_torchvisions_in_all_orders():
    names = ["brightness", "contrast", "saturation", "hue"]
    images, jitter = make_images(3_000, height=2, width=2), REGISTRY["color"]
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


@pytest.mark.parametrize("n_channels", [1, 3])
def test_gray_is_torchvisions(n_channels):
    images = make_images(n_channels=n_channels)
    expected = tvf.rgb_to_grayscale(images, num_output_channels=n_channels)
    assert torch.equal(REGISTRY["gray"].change(images, seeded()), expected)


def test_erasing_makes_one_box_of_whole_pixels_gray():
    images = make_images(2_000, 2, 12, 16) + 0.1
    result = REGISTRY["erasing"].change(images, seeded())
    is_erased = result == 0.5
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
    erased = REGISTRY["erasing"].change(image.expand(2_000, 1, -1, -1), seeded())
    is_erased = erased[:, 0] == 0.5
    rows, columns = is_erased.any(dim=2).int(), is_erased.any(dim=1).int()
    ours = (rows.argmax(dim=1), columns.argmax(dim=1), rows.sum(dim=1), columns.sum(dim=1))
    for mine, theirs in zip(ours, zip(*drawn, strict=True), strict=True):
        assert_same_distribution(mine, theirs)
