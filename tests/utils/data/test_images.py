"""Auxiliary variables, equivalence by label, hold-out and checks of all data sets of images."""

import pytest
import torch

from utils.data.images import draw_of_same_class, hold_out
from utils.data.in_memory import InMemoryImages
from utils.data.module import DataError

N, N_CLASSES, SIDE = 60, 3, 8
LABELS = torch.arange(N) % N_CLASSES


def numbered(n, start=0):
    """Images whose pixels all hold their number."""
    return torch.arange(start, start + n).to(torch.uint8).view(n, 1, 1, 1).expand(n, 3, SIDE, SIDE)


class NumberedImages(InMemoryImages):
    """Image number i has the grey value i in all pixels, and class i % 3."""

    kind = "colour_image"
    n_outputs = N_CLASSES
    SIZES = {"train": N, "test": N}

    def __init__(self, **kwargs):
        super().__init__(**({"side": SIDE, "batch_size": 16, "val_fraction": 0.1} | kwargs))

    def load_splits(self):
        return {"train": (numbered(N), LABELS), "test": (numbered(N, start=N), LABELS)}


class Regression(NumberedImages):
    task = "regression"
    n_outputs = 2

    def load_splits(self):
        return {s: (images, torch.rand(N, 2)) for s, (images, _) in super().load_splits().items()}


class Unlabelled(NumberedImages):
    is_labelled = False

    def load_splits(self):
        labels = {"train": torch.full((N,), -1), "val": LABELS, "test": LABELS}
        return {split: (numbered(N), targets) for split, targets in labels.items()}


def numbers(images):
    return (255 * images[:, 0, SIDE // 2, SIDE // 2]).round().long()


def gather(loader):
    """All x, all y and all auxiliary variables of one iteration."""
    return tuple(torch.cat(parts) for parts in zip(*loader, strict=True))


# --- auxiliary variables


BY_LABEL = ["label", "hflip"]  # flips leave images of one value as they are


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_positives_of_the_equivalence_by_label_are_other_images_of_the_class(split):
    x, y, aux = gather(NumberedImages(auxiliary="positive", equivalence=BY_LABEL).loader(split))
    if split != "train":  # where classes are not known
        assert torch.equal(numbers(aux), numbers(x))
        return
    assert torch.equal(numbers(aux) % N_CLASSES, y) and torch.equal(numbers(x) % N_CLASSES, y)
    assert (numbers(aux) != numbers(x)).float().mean() > 0.3
    assert set(numbers(aux).tolist()) <= set(
        numbers(gather(NumberedImages(auxiliary="input").loader(split, shuffle=False))[0]).tolist()
    )


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_positives_are_compared_with_as_many_examples_in_evaluation_as_in_training(split):
    settings = {"equivalence": ["hflip"], "batch_size": 5, "eval_batch_size": 50}
    sizes = {
        auxiliary: len(next(iter(NumberedImages(auxiliary=auxiliary, **settings).loader(split))).x)
        for auxiliary in ("positive", "input")
    }
    assert sizes["positive"] == 5
    assert sizes["input"] == {"train": 5, "val": 6, "test": 50}[split]


def test_positives_are_drawn_anew_in_each_epoch():
    data = NumberedImages(auxiliary="positive", equivalence=BY_LABEL)
    (x, _, aux), (other_x, _, other) = (
        gather(data.loader("train", epoch=k, shuffle=False)) for k in range(2)
    )
    assert torch.equal(x, other_x) and not torch.equal(aux, other)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_representative_of_a_class_is_its_first_training_image(split):
    data = NumberedImages(auxiliary="representative", equivalence=BY_LABEL)
    train = data.splits["train"][0][:, 0, 0, 0].long()
    first = torch.stack([train[train % N_CLASSES == c][0] for c in range(N_CLASSES)])
    x, y, aux = gather(data.loader(split))
    assert torch.equal(numbers(aux), first[y] if split == "train" else numbers(x))


def test_the_equivalence_by_label_moves_neither_x_nor_y():
    settings = {"equivalence": ["hflip", "color"]}
    with_labels = {"equivalence": ["hflip", "color", "label"]}
    x, y, _ = gather(NumberedImages(**settings).loader("train"))
    for auxiliary in ("input", "positive", "representative", "target"):
        other_x, other_y, _ = gather(
            NumberedImages(auxiliary=auxiliary, **with_labels).loader("train")
        )
        assert torch.equal(x, other_x) and torch.equal(y, other_y)


def test_the_target_can_be_the_auxiliary_variable():
    _, y, aux = gather(NumberedImages(auxiliary="target").loader("train"))
    assert torch.equal(aux, y)


def test_noisy_labels_leave_the_class_of_the_representative_alone():
    data = NumberedImages(
        auxiliary="representative", equivalence=["label", "equiv_resize_crop_0.5"]
    )
    x, y, aux = gather(data.loader("train"))
    classes = numbers(x) % N_CLASSES
    assert torch.equal(numbers(aux) % N_CLASSES, classes)
    assert 0 < (y != classes).float().mean() < 0.5
    data = NumberedImages(auxiliary="target", equivalence=["equiv_resize_crop_0.5"])
    _, y, aux = gather(data.loader("train"))
    assert torch.equal(aux, y)  # what is known of the class is the noisy label


def test_evaluation_may_have_equivalences_of_its_own():
    ramp = torch.arange(SIDE).to(torch.uint8).expand(N, 3, SIDE, SIDE)

    class Ramps(NumberedImages):
        def load_splits(self):
            return {split: (ramp, LABELS) for split in ("train", "test")}

    def is_augmented(split, **kwargs):
        data = Ramps(auxiliary="representative", equivalence=["vflip", "rotation"], **kwargs)
        x, _, aux = gather(data.loader(split))
        return not torch.equal(x, aux)

    for split in ("val", "test"):
        assert is_augmented(split)
        assert is_augmented(split, val_equivalence=["hflip"])
        assert not is_augmented(split, val_equivalence=[])
        assert not is_augmented(split, val_equivalence=["hflip"], is_augment_val=False)
    assert is_augmented("train", val_equivalence=[])


# --- what cannot work


@pytest.mark.parametrize("data_set", [Regression, Unlabelled])
@pytest.mark.parametrize("name", ["label", "equiv_resize_crop_0"])
def test_equivalences_that_need_classes_are_refused_without_them(data_set, name):
    for setting in ("equivalence", "val_equivalence")[: 1 if name == "label" else 2]:
        message = rf"^{setting}=\['hflip', '{name}'\] needs .* {data_set.__name__} does not have"
        with pytest.raises(ValueError, match=message):
            data_set(**{setting: ["hflip", name]})


@pytest.mark.parametrize(
    ("settings", "at_fault"),
    [
        ({}, r"equivalence=\[\]"),
        ({"equivalence": ["resize"], "val_equivalence": ["hflip"]}, r"equivalence=\['resize'\]"),
        ({"equivalence": ["hflip"], "p_augment": 0.0}, "p_augment=0"),
    ],
)
def test_training_images_are_never_their_own_positives(settings, at_fault):
    for auxiliary in ("none", "input", "representative", "target"):
        NumberedImages(auxiliary=auxiliary, **settings)
    with pytest.raises(ValueError, match=f"^{at_fault} leaves images as they are"):
        NumberedImages(auxiliary="positive", **settings)


@pytest.mark.parametrize(
    "settings",
    [{"equivalence": ["label"]}, {"equivalence": ["hflip"], "is_augment_val": False}],
)
def test_unaugmented_evaluation_has_images_as_their_own_positives(settings):
    x, _, aux = gather(NumberedImages(auxiliary="positive", **settings).loader("val"))
    assert torch.equal(x, aux)


def test_evaluation_by_label_is_refused():
    with pytest.raises(ValueError, match="val_equivalence=.*'label' acts in training only"):
        NumberedImages(equivalence=["label"], val_equivalence=["label"])


def test_without_labels_targets_are_minus_one_in_training_only():
    data = Unlabelled()
    assert (gather(data.loader("train"))[1] == -1).all()
    assert torch.equal(gather(data.loader("test"))[1], LABELS)


def test_regression_targets_pass_unchanged():
    data = Regression(auxiliary="positive", equivalence=["hflip"])
    _, y, _ = gather(data.loader("test"))
    assert torch.equal(y, data.splits["test"][1])


def test_a_class_without_training_images_has_no_representative():
    class Partial(NumberedImages):
        def load_splits(self):
            return {s: (numbered(N), LABELS.clamp(max=1)) for s in ("train", "test")}

    data = Partial(auxiliary="representative", equivalence=["label"])
    with pytest.raises(DataError, match="1 classes have none, e.g. class 2"):
        next(iter(data.loader("train")))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (LABELS.float(), "int64"),
        (LABELS[:, None], "int64"),
        (LABELS - 1, r"\[0, 3\), got -1 to 1"),
        (LABELS + 1, r"\[0, 3\), got 1 to 3"),
    ],
)
def test_targets_of_the_wrong_form_are_refused(targets, message):
    with pytest.raises(ValueError, match=message):
        NumberedImages().check_targets("train", targets, N)


def test_regression_targets_of_the_wrong_form_are_refused():
    data = Regression()
    data.check_targets("train", torch.zeros(N, 2), N)
    for targets in (torch.zeros(N), torch.zeros(N, 3), torch.zeros(N, 2).double()):
        with pytest.raises(ValueError, match=r"float32 \[N, 2\]"):
            data.check_targets("train", targets, N)


def test_a_part_of_the_data_set_has_to_be_asked_for():
    whole, part = {"train": N, "test": N}, {"train": N, "test": 5}
    NumberedImages().check_sizes(whole)
    NumberedImages(is_complete=False).check_sizes(part)
    with pytest.raises(DataError, match=f"there are 5 of {N} images of 'test' in fol") as error:
        NumberedImages(data_dir="folder").check_sizes(part)
    assert "data_feat.kwargs.is_complete=false data_feat.length=54\n" in str(error.value)
    for sizes in ({"train": N}, {"train": N, "test": 0}):
        with pytest.raises(DataError, match=f"0 of {N} images of 'test'") as error:
            NumberedImages(is_complete=False).check_sizes(sizes)
        assert "is_complete" not in str(error.value)  # which would not help


@pytest.mark.parametrize("n", [N, 50, 31])
def test_the_length_of_a_part_is_what_the_message_says(n):
    class Part(NumberedImages):
        def load_splits(self):
            images, labels = super().load_splits()["train"]
            return {split: (images[:n], labels[:n]) for split in ("train", "test")}

    Part.SIZES = {"train": N + 1, "test": N}
    with pytest.raises(DataError) as error:
        Part().setup()
    assert f"data_feat.length={Part(is_complete=False).n_examples('train')}\n" in str(error.value)


# --- hold-out, drawing


def test_classes_keep_their_frequencies_in_what_is_held_out():
    targets = torch.tensor([0] * 600 + [1] * 300 + [2] * 100)
    kept, held_out = hold_out(targets, 0.1)
    assert targets[held_out].bincount().tolist() == [60, 30, 10]
    assert torch.equal(torch.cat([kept, held_out]).sort().values, torch.arange(1000))
    assert all(
        torch.equal(a, b) for a, b in zip((kept, held_out), hold_out(targets, 0.1), strict=True)
    )


@pytest.mark.parametrize(("n", "fraction"), [(1000, 0.05), (999, 0.05), (30, 0.1), (3680, 0.05)])
def test_the_fraction_is_rounded(n, fraction):
    for targets in (torch.arange(n) % 2, torch.rand(n, 4)):
        kept, held_out = hold_out(targets, fraction)
        assert len(held_out) == round(fraction * n) and len(kept) == n - len(held_out)


@pytest.mark.parametrize(
    ("counts", "fraction"),
    [((10, 10, 10), 0.05), ((10, 10, 1), 0.2), ((2, 2, 2), 0.95)],
)
def test_holding_out_needs_examples_of_all_classes_in_both_parts(counts, fraction):
    targets = torch.arange(3).repeat_interleave(torch.tensor(counts))
    with pytest.raises(ValueError, match=f"val_fraction={fraction} holds out .* of 3 classes"):
        hold_out(targets, fraction)


def test_draws_are_uniform_over_the_class():
    labels = torch.tensor([0, 1, 1, 0, 2, 1, 0, 1])
    indices = torch.arange(8).repeat(2000)
    drawn = draw_of_same_class(labels, indices, torch.Generator().manual_seed(0))
    assert torch.equal(labels[drawn], labels[indices])
    for i in range(8):
        counts = drawn[indices == i].bincount(minlength=8).float() / 2000
        expected = (labels == labels[i]).float() / (labels == labels[i]).sum()
        assert torch.allclose(counts, expected, atol=0.05)
