"""What all data sets of images share: augmentations, auxiliary variables, checks, hold-out."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from sklearn.model_selection import train_test_split
from torch import Tensor
from torchvision.transforms import v2

from lossyless.base import Batch
from utils.data.augmentations import Augmentation
from utils.data.indexed import IndexedDataModule
from utils.data.module import DataError
from utils.data.resizing import make_resize

SPLIT_SEED = 0  # the same validation examples for all runs, whatever their seed


class ImageDataModule(IndexedDataModule):
    """Square images with targets, augmented in batches on the device.

    Batches hold float32 images [B, C, side, side] in [0, 1]. x is augmented. `Batch.aux` is x
    itself (input), the unaugmented image (representative), a second augmentation (positive) or the
    target. If "label" is one of the equivalences, training images of one class are equivalent: the
    representative is the class's first training image, the positive an augmentation of another
    image of the class. In evaluation classes are not known, and "label" is left out.

    Joint augmentations ("equiv_*") change y too, of evaluation splits as of the training split:
    their noise is part of the task's distribution, and puts a floor under its error, see
    `JointResizeCrop`.

    Parameters
    ----------
    side : int
        Height and width of the images.
    base_resize : str
        How images get that size, see `utils.data.resizing`.
    equivalence : sequence of str
        Names of augmentations, see `utils.data.augmentations.REGISTRY`.
    val_equivalence : sequence of str, optional
        Those of the evaluation splits, if they differ.
    p_augment : float
        Probability with which an image is augmented at all, see `Augmentation`.
    is_augment_val : bool
        Whether to augment the evaluation splits at all (with a fixed seed). If not, images are
        their own positives there.
    val_fraction : float
        Part of the training examples to hold out, stratified and the same for all seeds, if the
        data set has no validation split of its own.
    is_complete : bool
        Whether all images of the original data set must be there.
    kwargs
        See `DataModule`.

    Raises
    ------
    ValueError
        If an equivalence needs classes that there are not, or if positives are asked for although
        training images are equivalent to nothing but themselves.
    """

    task = "classification"
    n_channels = 3
    #: side at which images are augmented and then resized once more; None: at their final side
    AUGMENT_SIDE: int | None = None
    #: examples of each split of the original data set, before anything is held out
    SIZES: Mapping[str, int] = {}
    #: what to do when some of them are missing
    HOW_TO_RESTORE = (
        "The download or its unpacking did not finish, or files were deleted: delete the folder of "
        "this data set there and run again."
    )

    def __init__(
        self,
        *,
        side: int,
        base_resize: str = "resize",
        equivalence: Sequence[str] = (),
        val_equivalence: Sequence[str] | None = None,
        p_augment: float = 1.0,
        is_augment_val: bool = True,
        val_fraction: float = 0.05,
        is_complete: bool = True,
        **kwargs: object,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 < val_fraction < 1:
            raise ValueError(f"val_fraction must lie in (0, 1), got {val_fraction}.")
        self.shape = (self.n_channels, side, side)
        self.base_resize = base_resize
        setting = f"equivalence={list(equivalence)}"
        self.augmentation = self._make_augmentation(equivalence, p_augment, setting)
        if self.auxiliary == "positive" and self.augmentation.is_identity:
            raise ValueError(
                f"{setting if p_augment > 0 else 'p_augment=0'} leaves images as they are, so that "
                "each would be its own positive and a contrastive distortion meaningless: choose "
                "equivalences, or another distortion."
            )
        setting = f"val_equivalence={val_equivalence and list(val_equivalence)}"
        if val_equivalence is None:
            val_equivalence = [name for name in equivalence if name != "label"]
        if "label" in val_equivalence:
            raise ValueError(f"{setting}: 'label' acts in training only, leave it out.")
        self.val_augmentation = self._make_augmentation(
            val_equivalence if is_augment_val else (), p_augment, setting
        )
        self.val_fraction = val_fraction
        self.is_complete = is_complete
        self._augment_shape = (self.n_channels, *[self.AUGMENT_SIDE or side] * 2)
        self._resizes = {
            is_evaluation: make_resize(
                base_resize, self._augment_shape[-1], is_evaluation=is_evaluation
            )
            for is_evaluation in (False, True)
        }
        self._class_images_on: dict[torch.device, Tensor] = {}

    @abstractmethod
    def labels(self, split: str) -> Tensor:
        """Targets of all examples of a split, on the CPU."""

    def resize(self, split: str) -> v2.Transform:
        """The `base_resize` of a split."""
        return self._resizes[split != "train"]

    def augmentation_of(self, split: str) -> Augmentation:
        """The augmentation of a split."""
        return self.augmentation if split == "train" else self.val_augmentation

    def has_copies(self, split: str) -> bool:
        """Whether images of a split come out differently each time."""
        return not self.augmentation_of(split).is_identity

    # --- batches

    def choose(
        self, split: str, order: Tensor, batch_size: int, generator: torch.Generator
    ) -> list[Tensor]:
        """Indices of each batch; behind them, those of their partners if there are any."""
        batches = super().choose(split, order, batch_size, generator)
        if not self._has_partners(split):
            return batches
        partners = draw_of_same_class(self.labels(split).to(order.device), order, generator)
        pairs = zip(batches, partners.split(batch_size), strict=True)
        return [torch.cat(pair) for pair in pairs]

    def make_batch(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        split: str,
        generator: torch.Generator,
        positive_generator: torch.Generator,
    ) -> Batch:
        images = partners = self._to_float(inputs, split)
        if self._has_partners(split):
            images, partners = images.chunk(2)
            targets = targets[: len(images)]
        augmentation = self.augmentation_of(split)
        x, y = augmentation.jointly(images, targets, self.n_outputs, generator)
        x = self._to_shape(x)
        if self.auxiliary == "positive":
            return Batch(x, y, self._to_shape(augmentation(partners, positive_generator)))
        if self.auxiliary == "representative":
            if augmentation.uses_labels:
                # y may be noisy; the class that the image belongs to is not
                images = self._class_images(x.device)[targets]
            return Batch(x, y, self._to_shape(images))
        return Batch(x, y, {"none": None, "input": x, "target": y}[self.auxiliary])

    def _to_float(self, inputs: Tensor, split: str) -> Tensor:
        """Float images in [0, 1] of uint8 images, of the shape in which they are augmented."""
        if tuple(inputs.shape[1:]) != self._augment_shape:
            inputs = self.resize(split)(inputs)
        return inputs.float() / 255

    def _to_shape(self, images: Tensor) -> Tensor:
        """Augmented images as images [B, *shape]."""
        if tuple(images.shape[1:]) == self.shape:
            return images
        return v2.functional.resize(images, self.shape[1:], antialias=True)

    def _has_partners(self, split: str) -> bool:
        return self.auxiliary == "positive" and self.augmentation_of(split).uses_labels

    def _class_images(self, device: torch.device) -> Tensor:
        """The first training image of each class, [n_outputs, C, H, W]; read once."""
        if device not in self._class_images_on:
            labels = self.labels("train")
            if missing := sorted(set(range(self.n_outputs)) - set(labels.tolist())):
                raise DataError(
                    f"{type(self).__name__}: the equivalence 'label' needs a training image of "
                    f"each class. {len(missing)} classes have none, e.g. class {missing[0]}."
                )
            first = torch.stack([(labels == c).nonzero()[0, 0] for c in range(self.n_outputs)])
            ((images, _),) = self.read("train", [first.to(device)], device)
            self._class_images_on[device] = self._to_float(images, "train")
        return self._class_images_on[device]

    # --- checks

    def _make_augmentation(
        self, names: Sequence[str], p_augment: float, setting: str
    ) -> Augmentation:
        """The augmentation of a setting; ValueError if it does not suit the data set."""
        augmentation = Augmentation(names, p_augment)
        needs_classes = augmentation.uses_labels or augmentation.is_joint
        if needs_classes and not (self.is_labelled and self.task == "classification"):
            raise ValueError(
                f"{setting} needs the class of each training image, which {type(self).__name__} "
                "does not have: leave out 'label' and 'equiv_*'."
            )
        return augmentation

    def check_sizes(self, sizes: Mapping[str, int]) -> None:
        """Raise `DataError` if a split is empty, or not complete although it has to be."""
        found = {split: sizes.get(split, 0) for split in self.SIZES}
        wrong = [
            f"{n} of {self.SIZES[split]} images of {split!r}"
            for split, n in found.items()
            if n == 0 or (self.is_complete and n != self.SIZES[split])
        ]
        if wrong:
            raise DataError(
                f"{type(self).__name__}: there are {', '.join(wrong)} in {self.data_dir}. "
                f"{self.HOW_TO_RESTORE}{self._how_to_do_with(sizes) if all(found.values()) else ''}"
            )

    def _how_to_do_with(self, sizes: Mapping[str, int]) -> str:
        """What to add to the command if these sizes are meant."""
        n_train = sizes["train"]
        if "val" not in sizes:
            n_train -= n_to_hold_out(n_train, self.val_fraction)
        return (
            "\nTo make do with what is there, add\n    data_feat.kwargs.is_complete=false "
            f"data_feat.length={n_train}\nand the same for data_pred, where this data set is used."
        )

    def check_targets(self, split: str, targets: Tensor, n: int) -> None:
        """Raise ValueError if the targets of n examples have not the type of the task."""
        if self.task == "classification":
            is_right, expected = targets.dtype == torch.int64 and targets.shape == (n,), "int64 [N]"
        else:
            is_right = targets.dtype == torch.float32 and targets.shape == (n, self.n_outputs)
            expected = f"float32 [N, {self.n_outputs}]"
        if not is_right:
            raise ValueError(
                f"Targets of split {split!r} must be {expected} with N = {n}, "
                f"got {targets.dtype} {list(targets.shape)}."
            )
        lowest = 0 if self.is_labelled or split == "test" else -1
        if self.task == "classification" and not (
            lowest <= targets.min() and targets.max() < self.n_outputs
        ):
            raise ValueError(
                f"Classes of split {split!r} must lie in [{lowest}, {self.n_outputs}), "
                f"got {targets.min()} to {targets.max()}."
            )


def n_to_hold_out(n: int, fraction: float) -> int:
    """How many of n examples are for validation."""
    return max(1, round(fraction * n))


def hold_out(targets: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
    """Indices (kept, held out) of examples, the same ones every time.

    Classes [N] keep their frequencies; other targets are split without regard to their values.

    Raises
    ------
    ValueError
        If there are too few examples to have all classes in both parts.
    """
    n_held_out = n_to_hold_out(len(targets), fraction)
    is_classes = not targets.is_floating_point()
    if is_classes:
        counts = targets.unique(return_counts=True)[1]
        if counts.min() < 2 or min(n_held_out, len(targets) - n_held_out) < len(counts):
            raise ValueError(
                f"val_fraction={fraction} holds out {n_held_out} of {len(targets)} examples of "
                f"{len(counts)} classes, the smallest of {counts.min()}: choose another one, such "
                "that each class can have examples in both parts."
            )
    return tuple(
        torch.from_numpy(indices).sort().values
        for indices in train_test_split(
            torch.arange(len(targets)).numpy(),
            test_size=n_held_out,
            stratify=targets.numpy() if is_classes else None,
            random_state=SPLIT_SEED,
        )
    )


def draw_of_same_class(labels: Tensor, indices: Tensor, generator: torch.Generator) -> Tensor:
    """For each index the index of a uniformly drawn example of its class (perhaps itself)."""
    by_class = labels.argsort(stable=True)
    counts = labels.bincount()
    starts = counts.cumsum(0) - counts
    classes = labels[indices]
    uniform = torch.rand(
        len(indices), generator=generator, device=generator.device, dtype=torch.float64
    )
    return by_class[starts[classes] + (uniform * counts[classes]).long()]
