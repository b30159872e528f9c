"""Data sets that fit in memory: their tensors move to the device once, batches are made there."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from lossyless.batch import Batch
from utils.data.base import DataModule, check_choice, spawn_generator
from utils.data.equivalences import Augmentation

SPLIT_SEED = 0  # the same validation examples for all runs, whatever their seed


class InMemoryDataModule(DataModule):
    """Data set of tensors; subclasses say what the tensors are and how a batch is made of them."""

    @abstractmethod
    def load_splits(self) -> dict[str, tuple[Tensor, Tensor]]:
        """For each split the inputs [N, ...] and the targets [N] or [N, n_outputs]."""

    @abstractmethod
    def make_batch(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        split: str,
        generator: torch.Generator,
        positive_generator: torch.Generator,
    ) -> Batch:
        """Make a batch of some examples; positives draw from their own generator."""

    @cached_property
    def splits(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The tensors of `load_splits`, on the CPU."""
        return self.load_splits()

    @cached_property
    def _on_device(self) -> dict[tuple[str, torch.device], tuple[Tensor, Tensor]]:
        return {}

    def setup(self, stage: str | None = None) -> None:
        """Load the tensors now instead of when they are first asked for."""
        _ = self.splits

    def n_examples(self, split: str) -> int:
        return len(self.splits[check_choice("split", split, self.splits)][0])

    def tensors(self, split: str, device: torch.device) -> tuple[Tensor, Tensor]:
        """Inputs and targets of a split on the device, moved there once."""
        if (split, device) not in self._on_device:
            inputs, targets = self.splits[split]
            self._on_device[split, device] = inputs.to(device), targets.to(device)
        return self._on_device[split, device]

    def make_batches(
        self, split: str, *, batch_size: int, is_shuffled: bool, generator: torch.Generator
    ) -> Iterator[Batch]:
        device = generator.device
        inputs, targets = self.tensors(split, device)
        positive_generator = spawn_generator(generator, "positive")
        if is_shuffled:
            order = torch.randperm(len(inputs), generator=generator, device=device)
        else:
            order = torch.arange(len(inputs), device=device)
        for indices in order.split(batch_size):
            yield self.make_batch(
                inputs[indices],
                targets[indices],
                split=split,
                generator=generator,
                positive_generator=positive_generator,
            )


class InMemoryImages(InMemoryDataModule):
    """Images with classes, augmented in batches on the device.

    Batches hold float32 images [B, C, H, W] in [0, 1]: x is augmented; the auxiliary variable is x
    itself, the unaugmented image (representative) or a second augmentation (positive). Subclasses
    implement `load_splits`: uint8 images [N, C, H, W] and int64 labels [N] for "train", "test" and,
    if the data set has a validation split of its own, "val".

    Parameters
    ----------
    equivalence : sequence of str
        Names of augmentations, see `utils.data.equivalences.REGISTRY`.
    p_augment : float
        Probability of each augmentation, per example.
    is_augment_val : bool
        Whether to augment the evaluation splits too (with a fixed seed).
    val_fraction : float
        Part of the training examples to hold out, stratified and the same for all seeds, if the
        data set has no validation split of its own.
    kwargs
        See `DataModule`.
    """

    task = "classification"

    def __init__(
        self,
        *,
        equivalence: Sequence[str] = (),
        p_augment: float = 1.0,
        is_augment_val: bool = True,
        val_fraction: float = 0.05,
        **kwargs: object,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 < val_fraction < 1:
            raise ValueError(f"val_fraction must lie in (0, 1), got {val_fraction}.")
        self.augmentation = Augmentation(equivalence, p_augment=p_augment)
        self.is_augment_val = is_augment_val
        self.val_fraction = val_fraction

    @cached_property
    def splits(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Images and labels of the three splits, on the CPU."""
        splits = self.load_splits()
        for split, (images, labels) in splits.items():
            self._check(split, images, labels)
        if "val" not in splits:
            splits["train"], splits["val"] = hold_out(*splits["train"], self.val_fraction)
        return splits

    def make_batch(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        split: str,
        generator: torch.Generator,
        positive_generator: torch.Generator,
    ) -> Batch:
        images = inputs.float() / 255
        is_augmented = split == "train" or self.is_augment_val
        x = self.augmentation(images, generator) if is_augmented else images
        if self.auxiliary == "none":
            return Batch(x, targets)
        if self.auxiliary == "input":
            return Batch(x, targets, x)
        if self.auxiliary == "representative" or not is_augmented:
            return Batch(x, targets, images)
        return Batch(x, targets, self.augmentation(images, positive_generator))

    def _check(self, split: str, images: Tensor, labels: Tensor) -> None:
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != self.shape:
            raise ValueError(
                f"Images of split {split!r} must be uint8 [N, {', '.join(map(str, self.shape))}], "
                f"got {images.dtype} {list(images.shape)}."
            )
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"Labels of split {split!r} must be int64 [{len(images)}], "
                f"got {labels.dtype} {list(labels.shape)}."
            )


def hold_out(
    images: Tensor, labels: Tensor, fraction: float
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Split into (kept, held out) with the same class frequencies, the same way every time."""
    kept, held_out = train_test_split(
        torch.arange(len(labels)).numpy(),
        test_size=round(fraction * len(labels)),
        stratify=labels.numpy(),
        random_state=SPLIT_SEED,
    )
    return (images[kept], labels[kept]), (images[held_out], labels[held_out])
