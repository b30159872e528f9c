"""What is asked for by name acts as documented: how often, in which order, on labels too."""

import math
from itertools import combinations

import pytest
import torch
from torch.nn import functional as F

from utils.data.augmentations import REGISTRY, Augmentation, warp

RANDOM_AFFINE = ["rotation", "x_translation", "y_translation", "shear", "scale"]
ALL_BUT_JOINT = [name for name in REGISTRY if not name.startswith("equiv")]
JOINT = {f"equiv_resize_crop_{p}": p for p in (0, 0.05, 0.2, 0.5)}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make_images(n=5, n_channels=3, height=16, width=16):
    return torch.rand(n, n_channels, height, width, generator=seeded(1))


def is_changed(images, result):
    """Whether [B] an image is another one, rounding errors apart."""
    return ((result - images).abs() > 1e-4).flatten(1).any(dim=1)


def assert_frequency(is_event, probability):
    n = len(is_event)
    margin = 5 * math.sqrt(probability * (1 - probability) / n) + 1e-9
    assert abs(is_event.float().mean().item() - probability) <= margin


@pytest.mark.parametrize("p_augment", [0.3, 1.0])
@pytest.mark.parametrize("name", [name for name in REGISTRY if name not in ("resize", "label")])
def test_each_member_is_applied_with_its_probability(name, p_augment):
    images, augmentation = make_images(4_000), Augmentation([name], p_augment)
    (is_applied,) = record_draws(augmentation, images)
    assert_frequency(is_applied, REGISTRY[name].probability * p_augment)
    result = augmentation(images, seeded())
    assert not is_changed(images, result)[~is_applied].any()
    assert is_changed(images, result)[is_applied].float().mean() > 0.5


IN_CHAIN = ["x_translation", "hflip", "gray"]


@pytest.mark.parametrize("names", [*combinations([*IN_CHAIN, "erasing", "equiv_resize_crop_0"], 2)])
def test_one_draw_decides_about_the_chain_and_one_each_about_the_others(names):
    n, p_augment = 20_000, 0.6
    images = make_images(1, height=8, width=8).expand(n, -1, -1, -1)
    augmentation = Augmentation(names, p_augment)
    first, second = record_draws(augmentation, images)
    own = math.prod(REGISTRY[name].probability for name in names)
    n_decisions = 1 if set(names) <= set(IN_CHAIN) else 2
    assert_frequency(first & second, own * p_augment**n_decisions)


def record_draws(augmentation, images):
    """Which images [B] each member acts on, in the order in which members act or are drawn."""
    draws, draw_applied = [], augmentation._draw_applied
    augmentation._draw_applied = lambda *a: draws.append(draw_applied(*a)) or draws[-1]
    augmentation(images, seeded())
    return draws


def test_without_augmentation_whole_images_are_left_alone():
    """Of members that always act, all or none do."""
    names = ["rotation", "scale"]
    images = make_images(5_000, height=8, width=8)
    matrices, is_chained = Augmentation(names, p_augment=0.3).draw_matrices(images, seeded())
    assert_frequency(is_chained, 0.3)
    for drawn in matrices:
        assert torch.equal((drawn != torch.eye(3)).any(dim=2).any(dim=1), is_chained)


@pytest.mark.parametrize("names", [ALL_BUT_JOINT, list(JOINT)])
def test_without_probability_nothing_changes(names):
    images, targets = make_images(), torch.arange(5)
    augmentation = Augmentation(names, p_augment=0.0)
    assert augmentation.is_identity == ("label" not in names)
    assert torch.equal(augmentation(images, seeded()), images)
    for result, given in zip(
        augmentation.jointly(images, targets, 5, seeded()), (images, targets), strict=True
    ):
        assert torch.equal(result, given)


@pytest.mark.parametrize("names", [[], ["resize"], ["label"], ["label", "resize"]])
def test_names_that_are_no_transformations_leave_images_as_they_are(names):
    images, augmentation = make_images(), Augmentation(names)
    assert augmentation(images, seeded()) is images
    assert augmentation.uses_labels == ("label" in names) == (not augmentation.is_identity)
    assert not augmentation.is_joint


def test_the_generator_determines_the_result_and_no_other_state_takes_part():
    images, augmentation = make_images(), Augmentation(list(REGISTRY))
    before = torch.get_rng_state()
    result = augmentation(images, seeded(3))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    assert torch.equal(result, augmentation(images, seeded(3)))
    assert not torch.equal(result, augmentation(images, seeded(4)))


def test_the_order_of_the_names_does_not_matter():
    images, names = make_images(), list(REGISTRY)
    result = Augmentation(names)(images, seeded())
    assert torch.equal(result, Augmentation(names[::-1])(images, seeded()))


@pytest.mark.parametrize("names", [RANDOM_AFFINE, ["color"], ["resize_crop"], ALL_BUT_JOINT])
@pytest.mark.parametrize("n_channels", [1, 3])
def test_equal_images_become_different_ones_of_the_same_shape_and_range(names, n_channels):
    images = make_images(1, n_channels).expand(50, -1, -1, -1)
    given = images.clone()
    result = Augmentation(names)(images, seeded())
    assert result.shape == images.shape
    assert result.min() >= 0 and result.max() <= 1
    assert torch.equal(images, given)
    if names == ["color"]:
        result = result[is_changed(images, result)]
    assert (result[1:] != result[:1]).flatten(1).any(dim=1).all()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_extreme_images_stay_in_range(value):
    images = torch.full((200, 3, 16, 16), value)
    result = Augmentation(ALL_BUT_JOINT)(images, seeded())
    assert result.min() >= 0 and result.max() <= 1


@pytest.mark.parametrize(
    ("names", "n_expected"), [(list(REGISTRY), 1), (["hflip"], 1), (["color", "erasing"], 0)]
)
def test_images_are_interpolated_at_most_once(monkeypatch, names, n_expected):
    calls, grid_sample = [], F.grid_sample
    monkeypatch.setattr(F, "grid_sample", lambda *a, **k: calls.append(1) or grid_sample(*a, **k))
    Augmentation(names)(make_images(), seeded())
    assert len(calls) == n_expected


def test_a_batch_is_warped_as_its_images_one_by_one():
    images = make_images()
    moves, crops = (
        Augmentation([name], p_augment=0.7).draw_matrices(images, seeded(seed))[0][0]
        for seed, name in enumerate(["rotation", "resize_crop"])
    )
    single = [
        warp(i[None], [m[None]], c[None], "bilinear")
        for i, m, c in zip(images, moves, crops, strict=True)
    ]
    assert torch.allclose(warp(images, [moves], crops, "bilinear"), torch.cat(single), atol=1e-5)


@pytest.mark.parametrize("names", [ALL_BUT_JOINT, ["equiv_resize_crop_0.5", "color", "rotation"]])
def test_images_are_augmented_jointly_as_alone(names):
    images, targets, augmentation = make_images(), torch.arange(5), Augmentation(names)
    result, new_targets = augmentation.jointly(images, targets, 5, seeded())
    assert torch.equal(result, augmentation(images, seeded()))
    assert augmentation.is_joint == (names is not ALL_BUT_JOINT)
    if not augmentation.is_joint:
        assert torch.equal(new_targets, targets)


@pytest.mark.parametrize(("name", "noise"), JOINT.items())
def test_labels_are_noisy_where_a_crop_shows_too_little(name, noise):
    n, n_classes = 30_000, 4
    images, targets = torch.zeros(n, 1, 4, 4), torch.randint(4, (n,), generator=seeded())
    augmentation = Augmentation([name], p_augment=0.9)
    (matrices,), _ = augmentation.draw_matrices(images, seeded(2))
    shows_little = 1 / torch.linalg.det(matrices) < 0.5
    assert 0.2 < shows_little.float().mean() < 0.4

    _, new_targets = augmentation.jointly(images, targets, n_classes, seeded(2))
    is_new = new_targets != targets
    assert new_targets.dtype == torch.int64
    assert not is_new[~shows_little].any()
    assert_frequency(is_new[shows_little], noise * (1 - 1 / n_classes))
    for k in range(n_classes if noise else 0):
        assert_frequency(new_targets[is_new & (targets != k)] == k, 1 / (n_classes - 1))


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="rotate.*rotation--.*erasing.*label"):
        Augmentation(["rotation", "rotate"])
    with pytest.raises(ValueError, match="p_augment"):
        Augmentation(["rotation"], p_augment=1.5)
    with pytest.raises(ValueError, match="D4_group needs square images, got 8 x 16"):
        Augmentation(["D4_group"])(make_images(height=8), seeded())
    for name in ("color", "gray"):
        with pytest.raises(ValueError, match="1 .* or 3 .* channels, got 2"):
            Augmentation([name])(make_images(n_channels=2), seeded())
