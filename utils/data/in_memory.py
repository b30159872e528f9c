"""Data sets that fit in memory: their tensors move to the device once, batches are made there."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor

from utils.data.images import ImageDataModule, hold_out
from utils.data.indexed import IndexedDataModule
from utils.data.module import check_choice

# Images are resized once, when they are loaded, if that makes them at most so many times larger;
# otherwise batch by batch.
MAX_GROWTH = 4
RESIZE_CHUNK = 4096  # images that are resized at a time
MAX_RESIDENT_BYTES = 4 * 2**30  # of a split: larger ones stay on the CPU, or on disk


def is_resident(n_bytes: int) -> bool:
    """Whether a tensor of this size is kept as a whole where batches are made."""
    return n_bytes <= MAX_RESIDENT_BYTES


class InMemoryDataModule(IndexedDataModule):
    """Data set of tensors; subclasses say what the tensors are and how a batch is made of them."""

    @abstractmethod
    def load_splits(self) -> dict[str, tuple[Tensor, Tensor]]:
        """For each split the inputs [N, ...] and the targets [N] or [N, n_outputs]."""

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
        """Inputs and targets of a split, on the device unless they are too large."""
        if (split, device) not in self._on_device:
            inputs, targets = self.splits[split]
            home = device if is_resident(inputs.nbytes) else torch.device("cpu")
            self._on_device[split, device] = inputs.to(home), targets.to(home)
        return self._on_device[split, device]

    def read(
        self, split: str, batches: Sequence[Tensor], device: torch.device, seed: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        inputs, targets = self.tensors(split, device)
        for indices in batches:
            chosen = indices.to(inputs.device)
            yield inputs[chosen].to(device), targets[chosen].to(device)


class InMemoryImages(ImageDataModule, InMemoryDataModule):
    """Images in memory; see `ImageDataModule` for its parameters.

    Subclasses implement `load_splits`: uint8 images [N, C, H, W] and targets (int64 classes [N], or
    float32 [N, n_outputs] for regression) for "train", "test" and, if the data set has a validation
    split of its own, "val".
    """

    @cached_property
    def splits(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Images and targets of the three splits, on the CPU."""
        splits = self.load_splits()
        self.check_sizes({split: len(images) for split, (images, _) in splits.items()})
        if "val" not in splits:
            images, targets = splits["train"]
            kept, held_out = hold_out(targets, self.val_fraction)
            splits["train"] = images[kept], targets[kept]
            splits["val"] = images[held_out], targets[held_out]
        splits = {s: (self._resized(s, images), y) for s, (images, y) in splits.items()}
        for split, (images, targets) in splits.items():
            self._check(split, images, targets)
        return splits

    def labels(self, split: str) -> Tensor:
        return self.splits[split][1]

    def _resized(self, split: str, images: Tensor) -> Tensor:
        side = self._augment_shape[-1]
        height, width = images.shape[-2:]
        if side**2 > MAX_GROWTH * height * width:
            return images
        resize = self.resize(split)
        return torch.cat([resize(chunk) for chunk in images.split(RESIZE_CHUNK)])

    def _check(self, split: str, images: Tensor, targets: Tensor) -> None:
        n_channels = self.shape[0]
        is_image = images.ndim == 4 and images.shape[1] == n_channels
        may_grow = is_image and self.base_resize != "none"
        if images.dtype != torch.uint8 or not (
            may_grow or tuple(images.shape[1:]) == self._augment_shape
        ):
            raise ValueError(
                f"Images of split {split!r} must be uint8 [N, {', '.join(map(str, self.shape))}], "
                f"got {images.dtype} {list(images.shape)}."
            )
        self.check_targets(split, targets, len(images))
