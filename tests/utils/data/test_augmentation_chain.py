"""How often, in which order and on which labels the augmentations of a chain act."""

import math

import pytest
import torch
from helpers.batches import seeded
from torchvision.transforms.v2.functional import rgb_to_grayscale

from utils.data.augmentations import REGISTRY, Augmentation

ALL_BUT_JOINT = [name for name in REGISTRY if not name.startswith("equiv")]
JOINT = {f"equiv_resize_crop_{p}": p for p in (0, 0.05, 0.2, 0.5)}


def make_images(n=5, n_channels=3, height=16, width=16):
    return torch.rand(n, n_channels, height, width, generator=seeded(1))


def is_changed(images, result):
    """Whether each image has changed, apart from rounding errors: [B]."""
    return ((result - images).abs() > 1e-4).flatten(1).any(dim=1)


def assert_frequency(is_event, probability):
    n = len(is_event)
    margin = 5 * math.sqrt(probability * (1 - probability) / n) + 1e-9
    assert abs(is_event.float().mean().item() - probability) <= margin


@pytest.mark.parametrize("p_augment", [0.3, 1.0])
def test_each_member_is_applied_with_its_probability(p_augment):
    images = make_images(2_000)
    for name, member in REGISTRY.items():
        if member is None:
            continue
        changed = is_changed(images, Augmentation([name], p_augment)(images, seeded()))
        if name == "D4_group":  # one of its eight members is the identity
            assert_frequency(changed, 7 / 8 * p_augment)
        elif member.probability == 1:  # moves by less than a pixel change nothing
            assert 0.6 * p_augment < changed.float().mean() <= p_augment + 0.05
        else:
            assert_frequency(changed, member.probability * p_augment)


def test_members_outside_the_chain_have_independent_draws():
    p = 0.6
    images = make_images(1, height=8, width=8).expand(20_000, -1, -1, -1)
    result = Augmentation(["D4_group", "gray", "erasing"], p)(images, seeded())
    is_gray = (result[:, 0] == result[:, 1]).flatten(1).all(dim=1)
    is_erased = (result == 0.5).flatten(1).any(dim=1)
    luma, shown = (rgb_to_grayscale(x) for x in (images, result))
    is_turned = ((shown - luma).abs() > 1e-3).float().mean(dim=(1, 2, 3)) > 0.5
    assert_frequency(is_gray & is_turned, p * 7 / 8 * 0.2)
    assert_frequency(is_gray & is_erased, p * p * 0.2 * 0.5)


def test_the_chain_acts_on_an_image_as_a_whole():
    """If every member has probability one, either all members act or none does."""
    names = ["rotation", "scale"]
    images = make_images(5_000, height=8, width=8)
    matrices, is_chained = Augmentation(names, p_augment=0.3).draw_matrices(images, seeded())
    assert_frequency(is_chained, 0.3)
    for drawn in matrices:
        assert torch.equal((drawn != torch.eye(3)).any(dim=2).any(dim=1), is_chained)


def test_without_probability_or_transformations_nothing_changes():
    images, targets = make_images(), torch.arange(5)
    cases = [(0.0, ALL_BUT_JOINT), (0.0, list(JOINT)), (1.0, []), (1.0, ["label", "resize"])]
    for p_augment, names in cases:
        augmentation = Augmentation(names, p_augment)
        assert augmentation.is_identity != augmentation.uses_labels == ("label" in names)
        assert torch.equal(augmentation(images, seeded()), images)
        result, new_targets = augmentation.jointly(images, targets, 5, seeded())
        assert torch.equal(result, images) and torch.equal(new_targets, targets)


def test_the_generator_alone_determines_the_result_and_the_order_of_names_does_not():
    images, names = make_images(), list(REGISTRY)
    before = torch.get_rng_state()
    result = Augmentation(names)(images, seeded(3))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    assert torch.equal(result, Augmentation(names[::-1])(images, seeded(3)))
    assert not torch.equal(result, Augmentation(names)(images, seeded(4)))


@pytest.mark.parametrize("n_channels", [1, 3])
def test_augmented_images_differ_and_lie_in_the_unit_interval(n_channels):
    images = make_images(1, n_channels).expand(50, -1, -1, -1)
    given = images.clone()
    for names in (["rotation"], ["resize_crop"], ALL_BUT_JOINT):
        result = Augmentation(names)(images, seeded())
        assert result.shape == images.shape and result.min() >= 0 and result.max() <= 1
        assert (result[1:] != result[:1]).flatten(1).any(dim=1).all()
    assert torch.equal(images, given)
    for value in (0.0, 1.0):
        result = Augmentation(ALL_BUT_JOINT)(torch.full((200, 3, 16, 16), value), seeded())
        assert result.min() >= 0 and result.max() <= 1


def test_joint_augmentation_gives_the_same_images():
    images, targets = make_images(), torch.arange(5)
    for names in (ALL_BUT_JOINT, ["equiv_resize_crop_0.5", "color", "rotation"]):
        augmentation = Augmentation(names)
        result, new_targets = augmentation.jointly(images, targets, 5, seeded())
        assert torch.equal(result, augmentation(images, seeded()))
        assert augmentation.is_joint == (names is not ALL_BUT_JOINT)
        assert augmentation.is_joint or torch.equal(new_targets, targets)


@pytest.mark.parametrize(("name", "noise"), JOINT.items())
def test_labels_are_noisy_if_a_crop_shows_too_little(name, noise):
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


def test_bad_arguments_are_rejected():
    with pytest.raises(ValueError, match="'rotate'.*rotation--.*erasing.*label"):
        Augmentation(["rotation", "rotate"])
    with pytest.raises(ValueError, match="p_augment"):
        Augmentation(["rotation"], p_augment=1.5)
    with pytest.raises(ValueError, match="D4_group.* 8 x 16"):
        Augmentation(["D4_group"])(make_images(height=8), seeded())
    for name in ("color", "gray"):
        with pytest.raises(ValueError, match="1 .* 3 .* channels.* 2"):
            Augmentation([name])(make_images(n_channels=2), seeded())
