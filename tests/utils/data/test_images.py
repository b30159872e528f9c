"""Image data modules: auxiliary variables, equivalence by label, hold-out, checks."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from helpers.batches import gather

from utils.data.examples import InMemory, hold_out
from utils.data.images import JOINT_VALUES, ImageDataModule, draw_of_same_class
from utils.data.module import AUXILIARIES, SPLITS, DataError
from utils.data.sources import Source
from utils.data.sources.digits import digits

N, N_CLASSES, SIDE = 60, 3, 8
LABELS = torch.arange(N) % N_CLASSES


def in_memory(**splits):
    """Images and targets of each split, as a source opens them."""
    return {split: InMemory(*tensors) for split, tensors in splits.items()}


def plain(n, start=0):
    """Images whose pixels all equal the image's number."""
    return torch.arange(start, start + n).to(torch.uint8).view(n, 1, 1, 1).expand(n, 3, SIDE, SIDE)


def source_of(splits, **facts):
    defaults = {"n_outputs": N_CLASSES, "sizes": {"train": N, "test": N}}
    return Source("Toy", lambda data_dir: splits, **(defaults | facts))


# image number i has the grey value i, and class i % 3
NUMBERED = source_of(in_memory(train=(plain(N), LABELS), test=(plain(N, start=N), LABELS)))
REGRESSION = source_of(
    in_memory(train=(plain(N), torch.rand(N, 2)), test=(plain(N), torch.rand(N, 2))),
    task="regression",
    n_outputs=2,
)
UNLABELLED = source_of(
    in_memory(
        train=(plain(N), torch.full((N,), -1)), val=(plain(N), LABELS), test=(plain(N), LABELS)
    ),
    is_labelled=False,
)


def images_of(source, **kwargs):
    return ImageDataModule(
        source, **({"side": SIDE, "batch_size": 16, "val_fraction": 0.1} | kwargs)
    )


numbered = partial(images_of, NUMBERED)


def numbers(images):
    return (255 * images[:, 0, SIDE // 2, SIDE // 2]).round().long()


# --- auxiliary variables


def augmented(**kwargs):
    return digits(equivalence=["rotation", "x_translation", "scale"], **kwargs)


def test_representatives_are_the_unaugmented_images():
    data = augmented(auxiliary="representative")
    batch = next(iter(data.loader("test")))
    assert torch.equal(batch.aux, data.splits["test"].inputs.float() / 255)
    assert not torch.equal(batch.aux, batch.x)
    whole = augmented(auxiliary="representative", p_augment=0.0)
    batch = next(iter(whole.loader("train")))
    assert torch.equal(batch.x, batch.aux)


def test_positives_come_from_the_same_image():
    data = digits(auxiliary="positive", equivalence=["x_translation--"])
    batch = next(iter(data.loader("test")))
    # A horizontal shift that moves nothing out of the image preserves the sum of each row.
    is_inside = (batch.x[..., [0, -1]].amax((1, 2, 3)) == 0) & (
        batch.aux[..., [0, -1]].amax((1, 2, 3)) == 0
    )
    assert is_inside.sum() > 5
    rows, others = batch.x[is_inside].sum(dim=3), batch.aux[is_inside].sum(dim=3)
    assert torch.allclose(rows, others, atol=1e-3)


BY_LABEL = ["label", "hflip"]  # flips do not change constant images


def test_positives_of_the_equivalence_by_label_are_other_images_of_the_class():
    data = numbered(auxiliary="positive", equivalence=BY_LABEL)
    for split in ("val", "test"):  # evaluation does not know the classes
        x, _, aux = gather(data.loader(split))
        assert torch.equal(numbers(aux), numbers(x))
    (x, y, aux), (other_x, _, other) = (
        gather(data.loader("train", epoch=k, shuffle=False)) for k in range(2)
    )
    assert torch.equal(numbers(aux) % N_CLASSES, y) and torch.equal(numbers(x) % N_CLASSES, y)
    assert (numbers(aux) != numbers(x)).float().mean() > 0.3
    assert set(numbers(aux).tolist()) <= set(numbers(x).tolist())
    assert torch.equal(x, other_x) and not torch.equal(aux, other)


def test_contrastive_batches_have_the_same_size_in_evaluation_and_training():
    settings = {"equivalence": ["hflip"], "batch_size": 5, "eval_batch_size": 50}
    for auxiliary, expected in (("positive", [5, 5, 5]), ("input", [5, 6, 50])):
        data = numbered(auxiliary=auxiliary, **settings)
        assert [len(next(iter(data.loader(split))).x) for split in SPLITS] == expected


@pytest.mark.parametrize("auxiliary", AUXILIARIES)
def test_batches_that_are_made_together_have_the_same_images_and_sizes(auxiliary, monkeypatch):
    data = numbered(auxiliary=auxiliary, equivalence=BY_LABEL)  # 54 images of a training split
    expected = list(data.loader("train"))
    monkeypatch.setitem(JOINT_VALUES, "cpu", 2 * expected[0].x.numel() + 1)
    found = list(data.loader("train"))
    assert [len(batch.x) for batch in found] == [16, 16, 16, 6]
    assert found[0].x.untyped_storage().data_ptr() == found[1].x.untyped_storage().data_ptr()
    for joint, alone in zip(found, expected, strict=True):
        assert torch.equal(joint.x, alone.x) and torch.equal(joint.y, alone.y)
        if auxiliary == "positive":  # other images of the same classes
            assert torch.equal(numbers(joint.aux) % N_CLASSES, joint.y)
        elif auxiliary != "none":
            assert torch.equal(joint.aux, alone.aux)


def test_the_representative_of_a_class_is_its_first_training_image():
    data = numbered(auxiliary="representative", equivalence=BY_LABEL)
    train = data.splits["train"].inputs[:, 0, 0, 0].long()
    first = torch.stack([train[train % N_CLASSES == c][0] for c in range(N_CLASSES)])
    for split in SPLITS:
        x, y, aux = gather(data.loader(split))
        assert torch.equal(numbers(aux), first[y] if split == "train" else numbers(x))


def test_noisy_labels_do_not_change_the_representative():
    data = numbered(auxiliary="representative", equivalence=["label", "equiv_resize_crop_0.5"])
    x, y, aux = gather(data.loader("train"))
    classes = numbers(x) % N_CLASSES
    assert torch.equal(numbers(aux) % N_CLASSES, classes)
    assert 0 < (y != classes).float().mean() < 0.5
    data = numbered(auxiliary="target", equivalence=["equiv_resize_crop_0.5"])
    _, y, aux = gather(data.loader("train"))
    assert torch.equal(aux, y)  # only the noisy label of the class is known


def test_evaluation_may_use_other_equivalences():
    ramp = torch.arange(SIDE).to(torch.uint8).expand(N, 3, SIDE, SIDE)
    ramps = source_of(in_memory(train=(ramp, LABELS), test=(ramp, LABELS)))

    def is_augmented(split, **kwargs):
        settings = {"auxiliary": "representative", "equivalence": ["vflip", "rotation"]}
        x, _, aux = gather(images_of(ramps, **settings, **kwargs).loader(split))
        return not torch.equal(x, aux)

    for split in ("val", "test"):
        assert is_augmented(split)
        assert is_augmented(split, val_equivalence=["hflip"])
        assert not is_augmented(split, val_equivalence=[])
        assert not is_augmented(split, val_equivalence=["hflip"], is_augment_val=False)
    assert is_augmented("train", val_equivalence=[])


# --- bad settings


def test_equivalences_that_need_classes_are_rejected_without_them():
    for source in (REGRESSION, UNLABELLED):
        for setting, name in (
            ("equivalence", "label"),
            ("equivalence", "equiv_resize_crop_0"),
            ("val_equivalence", "equiv_resize_crop_0"),
        ):
            with pytest.raises(ValueError, match=rf"^{setting}=\['hflip', '{name}'\].*Toy"):
                images_of(source, **{setting: ["hflip", name]})


def test_training_images_are_never_their_own_positives_but_unaugmented_evaluation_images_are():
    for settings, at_fault in (
        ({}, r"equivalence=\[\]"),
        ({"equivalence": ["resize"], "val_equivalence": ["hflip"]}, r"equivalence=\['resize'\]"),
        ({"equivalence": ["hflip"], "p_augment": 0.0}, "p_augment=0"),
    ):
        for auxiliary in ("none", "input", "representative", "target"):
            numbered(auxiliary=auxiliary, **settings)
        with pytest.raises(ValueError, match=f"^{at_fault}"):
            numbered(auxiliary="positive", **settings)
    for settings in (
        {"equivalence": ["label"]},
        {"equivalence": ["hflip"], "is_augment_val": False},
    ):
        x, _, aux = gather(numbered(auxiliary="positive", **settings).loader("val"))
        assert torch.equal(x, aux)


def test_bad_arguments_are_rejected():
    with pytest.raises(ValueError, match="val_equivalence=.*'label'"):
        numbered(equivalence=["label"], val_equivalence=["label"])
    with pytest.raises(ValueError, match="val_fraction"):
        numbered(val_fraction=0.0)


# --- targets


def test_without_labels_targets_are_minus_one_in_training_only():
    data = images_of(UNLABELLED)
    assert (gather(data.loader("train"))[1] == -1).all()
    assert torch.equal(gather(data.loader("test"))[1], LABELS)


def test_a_class_without_training_images_has_no_representative():
    two = LABELS.clamp(max=1)
    partial_ = source_of(in_memory(train=(plain(N), two), test=(plain(N), two)))
    data = images_of(partial_, auxiliary="representative", equivalence=["label"])
    with pytest.raises(DataError, match="1 classes.*class 2"):
        next(iter(data.loader("train")))


def test_malformed_images_and_targets_are_rejected():
    for images, targets, message in (
        (plain(N).float(), LABELS, "uint8"),
        (plain(N)[:, :1], LABELS, "3, 8, 8"),
        (plain(N), LABELS.float(), "int64"),
        (plain(N), LABELS - 1, r"\[0, 3\).*from -1 to 1"),
        (plain(N), LABELS + 1, r"\[0, 3\).*from 1 to 3"),
    ):
        faulty = source_of(in_memory(train=(images, targets), test=(images, targets)))
        with pytest.raises(ValueError, match=message):
            images_of(faulty).setup()
    for wrong in (torch.zeros(N), torch.zeros(N, 3), torch.zeros(N, 2).double()):
        faulty = source_of(in_memory(train=(plain(N), wrong), test=(plain(N), wrong)))
        with pytest.raises(ValueError, match=r"float32 \[N, 2\]"):
            images_of(replace(faulty, task="regression", n_outputs=2)).setup()


# --- sizes and hold-out


def test_incomplete_data_sets_need_is_complete_false():
    for sizes, n_train in (({"train": N, "test": N + 3}, 54), ({"train": N + 1, "test": N}, 54)):
        part = replace(NUMBERED, sizes=sizes)
        with pytest.raises(DataError, match="60 of 6[13] images .* folder") as error:
            images_of(part, data_dir="folder").setup()
        assert f"is_complete=false data_feat.length={n_train}\n" in str(error.value)
        assert images_of(part, is_complete=False).n_examples("train") == n_train
    empty = source_of(in_memory(train=(plain(N), LABELS), test=(plain(0), LABELS[:0])))
    with pytest.raises(DataError, match=f"0 of {N} .*'test'") as error:
        images_of(empty, is_complete=False).setup()
    assert "is_complete" not in str(error.value)  # which would not help


def test_hold_out_is_stratified_by_class():
    targets = torch.tensor([0] * 600 + [1] * 300 + [2] * 100)
    kept, held_out = hold_out(targets, 0.1)
    assert targets[held_out].bincount().tolist() == [60, 30, 10]
    assert torch.equal(torch.cat([kept, held_out]).sort().values, torch.arange(1000))
    for targets in (torch.arange(999) % 2, torch.rand(999, 4)):
        kept, held_out = hold_out(targets, 0.05)
        assert len(held_out) == 50 and len(kept) == 949
        assert torch.equal(held_out, hold_out(targets, 0.05)[1])


def test_hold_out_needs_examples_of_all_classes_in_both_parts():
    for counts, fraction in (((10, 10, 10), 0.05), ((10, 10, 1), 0.2), ((2, 2, 2), 0.95)):
        targets = torch.arange(3).repeat_interleave(torch.tensor(counts))
        with pytest.raises(ValueError, match=f"val_fraction={fraction}"):
            hold_out(targets, fraction)


def test_partners_are_uniform_over_the_class():
    labels = torch.tensor([0, 1, 1, 0, 2, 1, 0, 1])
    indices = torch.arange(8).repeat(2000)
    drawn = draw_of_same_class(labels, indices, torch.Generator().manual_seed(0))
    assert torch.equal(labels[drawn], labels[indices])
    for i in range(8):
        counts = drawn[indices == i].bincount(minlength=8).float() / 2000
        expected = (labels == labels[i]).float() / (labels == labels[i]).sum()
        assert torch.allclose(counts, expected, atol=0.05)
