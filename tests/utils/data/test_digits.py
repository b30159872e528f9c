"""Digits, and what all in-memory image data sets share."""

import pytest
import torch
from sklearn.datasets import load_digits

from utils.data.digits import DigitsDataModule
from utils.data.in_memory import InMemoryImages

SIZES = {"train": 1197, "val": 200, "test": 400}


def augmented(**kwargs):
    return DigitsDataModule(equivalence=["rotation", "x_translation", "scale"], **kwargs)


def first(data, split="train", **kwargs):
    return next(iter(data.loader(split, **kwargs)))


def test_splits_cover_the_data_set_once_whatever_the_seed():
    data, other = DigitsDataModule(seed=1), DigitsDataModule(seed=2)
    assert {split: data.n_examples(split) for split in SIZES} == SIZES
    labels = torch.cat([data.splits[split][1] for split in SIZES])
    assert torch.equal(labels.bincount(), torch.from_numpy(load_digits().target).bincount())
    for split in SIZES:
        assert torch.equal(data.splits[split][0], other.splits[split][0])
    images = torch.cat([data.splits[split][0] for split in SIZES]).flatten(1)
    whole = DigitsDataModule(side=16, val_fraction=0.5)
    others = torch.cat([whole.splits[split][0] for split in SIZES]).flatten(1)
    assert torch.equal(images.unique(dim=0), others.unique(dim=0))


def test_splits_are_stratified():
    for _, labels in DigitsDataModule().splits.values():
        frequencies = labels.bincount(minlength=10) / len(labels)
        assert (frequencies - 0.1).abs().max() < 0.01


def test_at_the_original_size_images_are_the_original_ones():
    data = DigitsDataModule(side=8, margin=0)
    images = torch.cat([data.splits[split][0] for split in SIZES])[:, 0].flatten(1)
    original = torch.from_numpy(load_digits().images).flatten(1) * 255 / 16
    assert torch.equal(images.unique(dim=0), original.round().to(torch.uint8).unique(dim=0))


@pytest.mark.parametrize("side", [16, 32])
def test_batches_are_images_in_the_unit_range_with_labels(side):
    batch = first(augmented(side=side))
    assert batch.x.shape == (128, *augmented(side=side).shape) == (128, 1, side, side)
    assert batch.x.dtype == torch.float32 and batch.x.min() >= 0 and batch.x.max() <= 1
    assert batch.y.shape == (128,) and batch.y.dtype == torch.int64


def test_the_auxiliary_variable_changes_nothing_but_aux():
    auxiliaries = ("none", "input", "representative", "positive")
    batches = {a: list(augmented(auxiliary=a).loader("train"))[-1] for a in auxiliaries}
    for batch in batches.values():
        assert torch.equal(batch.x, batches["none"].x)
        assert torch.equal(batch.y, batches["none"].y)
    assert batches["none"].aux is None
    assert torch.equal(batches["input"].aux, batches["input"].x)
    assert not torch.equal(batches["positive"].aux, batches["positive"].x)


def test_representatives_are_the_unaugmented_images():
    data = augmented(auxiliary="representative")
    batch = first(data, "test")
    assert torch.equal(batch.aux, data.splits["test"][0].float() / 255)
    assert not torch.equal(batch.aux, batch.x)


def test_positives_come_from_the_same_image():
    data = DigitsDataModule(auxiliary="positive", equivalence=["x_translation--"])
    batch = first(data, "test")
    # A horizontal shift that moves nothing out of the image preserves the sum of each row.
    is_inside = (batch.x[..., [0, -1]].amax((1, 2, 3)) == 0) & (
        batch.aux[..., [0, -1]].amax((1, 2, 3)) == 0
    )
    assert is_inside.sum() > 5
    rows, others = batch.x[is_inside].sum(dim=3), batch.aux[is_inside].sum(dim=3)
    assert torch.allclose(rows, others, atol=1e-3)


def test_evaluation_is_augmented_only_if_asked_for():
    data = augmented(is_augment_val=False, auxiliary="representative")
    assert torch.equal(*first(data, "val")[::2])
    assert not torch.equal(*first(data, "train")[::2])


def test_without_probability_images_are_not_augmented():
    batch = first(augmented(p_augment=0.0, auxiliary="representative"))
    assert torch.equal(batch.x, batch.aux)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="val_fraction"):
        DigitsDataModule(val_fraction=0.0)
    with pytest.raises(ValueError, match="split 'valid'"):
        DigitsDataModule().n_examples("valid")


class FaultyImages(InMemoryImages):
    kind = "bw_image"
    n_channels = 1
    n_outputs = 10

    def __init__(self, images, labels):
        super().__init__(side=4, base_resize="none")
        self.tensors_ = images, labels

    def load_splits(self):
        return {"train": self.tensors_, "test": self.tensors_}


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(6, 1, 4, 4), torch.zeros(6).long(), "uint8"),
        (torch.zeros(6, 3, 4, 4).byte(), torch.zeros(6).long(), "1, 4, 4"),
        (torch.zeros(6, 1, 4, 4).byte(), torch.zeros(5).long(), "int64"),
    ],
)
def test_tensors_of_the_wrong_form_are_refused(images, labels, message):
    with pytest.raises(ValueError, match=message):
        FaultyImages(images, labels).setup()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_are_made_on_the_gpu():
    data = augmented(auxiliary="positive")
    batch, again = (first(data, device="cuda") for _ in range(2))
    assert all(tensor.is_cuda for tensor in batch)
    assert torch.equal(batch.x, again.x)
