"""Data module for images from a source, with augmentations and auxiliary variables."""

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import repeat
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from lossyless.base import Batch
from utils.configs.checks import check_known
from utils.data.augmentations import Augmentation
from utils.data.decoded import from_pixels
from utils.data.examples import (
    Examples,
    Images,
    InMemory,
    Streamed,
    draw_below,
    draw_order,
    hold_out,
)
from utils.data.module import DataError, DataModule, spawn_generator
from utils.data.sources import Source

BASE_RESIZES = ("resize", "upscale_crop_eval", "clip", "clip_random", "imagenet", "none")
RANDOM_CROP = "clip_random"
MARGIN = 8 / 7  # 256 pixels for a crop of 224
# On a GPU, several small batches are made at once, up to this many values: launching the kernels
# takes no longer for all these batches together than for one.
JOINT_VALUES = {"cuda": 2**21}


class ImageDataModule(DataModule):
    """Square images with targets, augmented in batches on the device.

    Batches hold float32 images [B, C, side, side] in [0, 1]. x is augmented. `Batch.aux` is x
    itself (input), the unaugmented image (representative), a second augmentation (positive) or the
    target. With the equivalence "label", all training images of a class are equivalent: the
    representative is the first image of the class, and the positive is an augmentation of a
    random image of the class. Evaluation ignores "label", because classes are unknown at test time.

    Joint augmentations ("equiv_*") also change y, both in training and in evaluation: their label
    noise is part of the task and bounds its error from below; see `JointResizeCrop`.

    Parameters
    ----------
    side : height and width of the images.
    base_resize : see `make_resize`.
    equivalence : names of augmentations; see `utils.data.augmentations.REGISTRY`.
    val_equivalence : augmentations of the evaluation splits, if different.
    p_augment : probability that an image is augmented at all; see `Augmentation`.
    is_augment_val : whether to augment the evaluation splits (with a fixed seed). Otherwise, each
        evaluation image is its own positive.
    val_fraction : fraction of the training images to hold out if the source has no validation
        split. The split is the same for all seeds, and stratified if targets are classes.
    is_complete : whether to require all images of the original data set.
    n_workers : number of processes that read images from disk; 0: the main process reads them.
    kwargs : see `DataModule`.

    Raises ValueError if an equivalence needs classes but the data have none, or if the auxiliary
    variable is a positive but each training image is equivalent only to itself.
    """

    def __init__(
        self,
        source: Source,
        *,
        side: int,
        base_resize: str = "resize",
        equivalence: Sequence[str] = (),
        val_equivalence: Sequence[str] | None = None,
        p_augment: float = 1.0,
        is_augment_val: bool = True,
        val_fraction: float = 0.05,
        is_complete: bool = True,
        n_workers: int = 0,
        **kwargs: object,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 < val_fraction < 1:
            raise ValueError(f"val_fraction must lie in (0, 1), got {val_fraction}.")
        self.source = source
        self.kind, self.task, self.n_outputs = source.kind, source.task, source.n_outputs
        self.is_labelled = source.is_labelled
        n_channels = 1 if source.kind == "bw_image" else 3
        self.shape = (n_channels, side, side)
        setting = f"equivalence={list(equivalence)}"
        self.augmentation = self._make_augmentation(equivalence, p_augment, setting)
        if self.auxiliary == "positive" and self.augmentation.is_identity:
            raise ValueError(
                f"{setting if p_augment > 0 else 'p_augment=0'} leaves images unchanged, so each "
                "would be its own positive, which makes a contrastive distortion meaningless: "
                "choose equivalences, or another distortion."
            )
        setting = f"val_equivalence={val_equivalence and list(val_equivalence)}"
        if val_equivalence is None:
            val_equivalence = [name for name in equivalence if name != "label"]
        if "label" in val_equivalence:
            raise ValueError(f"{setting}: 'label' applies only to training: leave it out.")
        self.val_augmentation = self._make_augmentation(
            val_equivalence if is_augment_val else (), p_augment, setting
        )
        self.val_fraction = val_fraction
        self.is_complete = is_complete
        self.n_workers = n_workers
        self.base_resize = base_resize
        augment_side = source.augment_side or side
        self._augment_shape = (n_channels, augment_side, augment_side)
        self._resizes = {
            is_evaluation: make_resize(base_resize, augment_side, is_evaluation=is_evaluation)
            for is_evaluation in (False, True)
        }
        self._class_images_on: dict[torch.device, Tensor] = {}

    def _make_augmentation(
        self, names: Sequence[str], p_augment: float, setting: str
    ) -> Augmentation:
        augmentation = Augmentation(names, p_augment)
        needs_classes = augmentation.uses_labels or augmentation.is_joint
        if needs_classes and not (self.is_labelled and self.task == "classification"):
            raise ValueError(
                f"{setting} needs the class of each training image, which {self.source.name} does "
                "not provide: leave out 'label' and 'equiv_*'."
            )
        return augmentation

    # --- splits

    @cached_property
    def splits(self) -> dict[str, Examples]:
        """Examples of the three splits.

        If the source has no validation split, one is held out from the training split. If it has no
        test split, the validation split is used instead.
        """
        images = self.open_source()
        members = {split: torch.arange(len(images[split].targets)) for split in images}
        if "val" not in images:
            images["val"] = images["train"]
            targets = images["train"].targets
            members["train"], members["val"] = hold_out(targets, self.val_fraction)
        splits = {split: self.select(images[split], members[split], split) for split in images}
        splits.setdefault("test", splits["val"])
        return splits

    def open_source(self) -> dict[str, InMemory | Images]:
        """Open the source's images, before any are held out or resized."""
        return self.source.open_checked(
            Path(self.data_dir), is_complete=self.is_complete, val_fraction=self.val_fraction
        )

    def select(self, images: InMemory | Images, members: Tensor, split: str) -> Examples:
        """Select the images at indices [N], to be treated like those of `split`."""
        if not isinstance(images, InMemory):
            resize = self._resizes[split != "train"]
            return Streamed(images, members, resize, self._augment_shape, self.n_workers)
        pixels = images.inputs
        is_image = pixels.dtype == torch.uint8 and pixels.ndim == 4
        is_shape = self.base_resize != "none" or tuple(pixels.shape[1:]) == self._augment_shape
        if not (is_image and pixels.shape[1] == self.shape[0] and is_shape):
            raise ValueError(
                f"Images of split {split!r} must be uint8 [N, {', '.join(map(str, self.shape))}], "
                f"got {pixels.dtype} {list(pixels.shape)}."
            )
        return InMemory(pixels[members], images.targets[members])

    def n_examples(self, split: str) -> int:
        return len(self.splits[split].targets)

    def augmentation_of(self, split: str) -> Augmentation:
        return self.augmentation if split == "train" else self.val_augmentation

    def has_copies(self, split: str) -> bool:
        """Whether images of a split are augmented or randomly cropped."""
        is_random_crop = split == "train" and self.base_resize == RANDOM_CROP
        return is_random_crop or not self.augmentation_of(split).is_identity

    # --- batches

    def make_batches(
        self, split: str, *, batch_size: int, is_shuffled: bool, generator: torch.Generator
    ) -> Iterator[Batch]:
        examples, device = self.splits[split], generator.device
        order = draw_order(len(examples.targets), is_shuffled, generator)
        positive_generator = spawn_generator(generator, "positive")
        n_values = batch_size * math.prod(self._augment_shape)
        n_joint = batch_size * max(1, JOINT_VALUES.get(device.type, 0) // n_values)
        groups = list(order.split(n_joint))
        if self._has_partners(split):  # read together with the images
            partners = draw_of_same_class(examples.targets.to(device), order, positive_generator)
            pairs = zip(groups, partners.split(n_joint), strict=True)
            groups = [torch.cat(pair) for pair in pairs]
        for pixels, targets in examples.read(groups, device, generator.initial_seed()):
            x, y, aux = self._make_batch(pixels, targets, split, generator, positive_generator)
            auxes = repeat(None) if aux is None else aux.split(batch_size)
            yield from map(Batch, x.split(batch_size), y.split(batch_size), auxes)

    def _make_batch(
        self,
        pixels: Tensor,
        targets: Tensor,
        split: str,
        generator: torch.Generator,
        positive_generator: torch.Generator,
    ) -> Batch:
        images = partners = self._to_float(pixels, split)
        if self._has_partners(split):
            images, partners = images.chunk(2)
            targets = targets[: len(images)]
        augmentation = self.augmentation_of(split)
        x, y = augmentation.jointly(images, targets, self.n_outputs, generator)
        x = self._to_shape(x)
        aux = {"input": x, "target": y}.get(self.auxiliary)
        if self.auxiliary == "positive":
            aux = self._to_shape(augmentation(partners, positive_generator))
        elif self.auxiliary == "representative":
            if augmentation.uses_labels:  # y may be noisy, unlike the image's true class
                images = self._class_images(x.device)[targets]
            aux = self._to_shape(images)
        return Batch(x, y, aux)

    def _to_float(self, pixels: Tensor, split: str) -> Tensor:
        """Convert uint8 images to float images in [0, 1], in the shape to be augmented."""
        if isinstance(self.splits[split], InMemory):  # `Streamed` resizes the others
            pixels = self._resizes[split != "train"](pixels)
        return from_pixels(pixels)

    def _to_shape(self, images: Tensor) -> Tensor:
        """Resize augmented images to [B, *shape]."""
        if tuple(images.shape[1:]) == self.shape:
            return images
        return v2.functional.resize(images, self.shape[1:], antialias=True)

    def _has_partners(self, split: str) -> bool:
        return self.auxiliary == "positive" and self.augmentation_of(split).uses_labels

    def _class_images(self, device: torch.device) -> Tensor:
        """The first training image of each class, [n_outputs, C, H, W]; read once."""
        if device not in self._class_images_on:
            labels = self.splits["train"].targets
            if missing := sorted(set(range(self.n_outputs)) - set(labels.tolist())):
                raise DataError(
                    f"{self.source.name}: the equivalence 'label' needs a training image of each "
                    f"class. {len(missing)} classes have none, e.g. class {missing[0]}."
                )
            first = torch.stack([(labels == c).nonzero()[0, 0] for c in range(self.n_outputs)])
            ((pixels, _),) = self.splits["train"].read([first.to(device)], device)
            self._class_images_on[device] = self._to_float(pixels, "train")
        return self._class_images_on[device]


def make_resize(name: str, side: int, *, is_evaluation: bool) -> v2.Transform:
    """Return a transform that maps PIL images or tensors [..., C, H, W] to [..., C, side, side].

    It is applied when images are read, before any augmentation. The names are:

    - resize: stretches the whole image to a square.
    - imagenet: resizes the shorter side to 8/7 of `side` (256 for 224) and crops the centre.
    - upscale_crop_eval: resize in training, imagenet in evaluation.
    - clip: resizes the shorter side (bicubic) and crops the centre, as CLIP does.
    - clip_random: like clip, but training images are cropped at random positions.
    - none: images must already have their final shape.
    """
    check_known("base_resize", [name], BASE_RESIZES)
    bicubic = v2.Resize(side, InterpolationMode.BICUBIC, antialias=True)
    if name == "none":
        return v2.Identity()
    if name == RANDOM_CROP and not is_evaluation:
        return v2.Compose([bicubic, v2.RandomCrop(side)])
    if name in ("clip", RANDOM_CROP):
        return v2.Compose([bicubic, v2.CenterCrop(side)])
    if name == "imagenet" or (name == "upscale_crop_eval" and is_evaluation):
        larger = v2.Resize(round(MARGIN * side), antialias=True)
        return v2.Compose([larger, v2.CenterCrop(side)])
    return v2.Resize((side, side), antialias=True)


def draw_of_same_class(labels: Tensor, indices: Tensor, generator: torch.Generator) -> Tensor:
    """For each index, draw the index of an example of the same class (possibly the same one)."""
    by_class = labels.argsort(stable=True)
    counts = labels.bincount()
    starts = counts.cumsum(0) - counts
    classes = labels[indices]
    return by_class[starts[classes] + draw_below(counts[classes], generator)]
