"""Examples that are read by index: tensors in memory, or images decoded by worker processes."""

import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from lossyless.parallel import affordable_workers, loader_errors
from lossyless.pixels import UNREADABLE
from lossyless.torch_state import drawing_from
from utils.data.module import DataError, derive_seed

SPLIT_SEED = 0  # runs hold out the same examples, whatever their seed
MAX_RESIDENT_BYTES = 4 * 2**30  # larger inputs stay on the CPU or on disk
# jobs of a parallel sweep inherit joblib's start method, which DataLoader does not support
START_METHOD = "fork" if sys.platform == "linux" else "spawn"


class Examples(Protocol):
    """Inputs and targets of one split."""

    targets: Tensor  # int64 [N], or float32 [N, n_outputs], on the CPU

    def read(
        self, batches: Sequence[Tensor], device: torch.device, seed: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the inputs [B, ...] and targets at each batch of indices [B], on `device`.

        `seed` seeds random preprocessing.
        """


class InMemory:
    """Inputs [N, ...] and targets as tensors, moved to the device on first use if they fit."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self.inputs = inputs
        self.targets = targets
        self._on_device: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def read(
        self, batches: Sequence[Tensor], device: torch.device, seed: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        if device not in self._on_device:
            home = device if self.inputs.nbytes <= MAX_RESIDENT_BYTES else torch.device("cpu")
            self._on_device[device] = self.inputs.to(home), self.targets.to(home)
        inputs, targets = self._on_device[device]
        for indices in batches:
            chosen = indices.to(inputs.device)
            yield inputs[chosen].to(device), targets[chosen].to(device)


class Images(Protocol):
    """Images that are opened one by one, their names for error messages, and their targets."""

    targets: Tensor

    def open(self, i: int) -> Image.Image: ...

    def name(self, i: int) -> str: ...


@dataclass(frozen=True)
class ImageFiles:
    """Image files and their targets."""

    paths: Sequence[str | Path]
    targets: Tensor  # int64 [N], or float32 [N, n_outputs]
    crop: int | None = None  # side in pixels of the central square to use; None: the whole image

    @classmethod
    def of(cls, samples: Sequence[tuple[str | Path, int]]) -> "ImageFiles":
        """Create from (path, class) pairs, e.g. from a torchvision data set with `loader=str`."""
        pairs = [samples[i] for i in range(len(samples))]
        classes = torch.tensor([int(c) for _, c in pairs], dtype=torch.int64)
        return cls([path for path, _ in pairs], classes)

    def take(self, indices: Tensor) -> "ImageFiles":
        """Select the files at indices [N]."""
        paths = [self.paths[i] for i in indices.tolist()]
        return ImageFiles(paths, self.targets[indices], self.crop)

    def on_disk(self) -> "ImageFiles":
        """Select the files that exist; annotations may list files that have not been unpacked."""
        folders = {os.path.dirname(path) for path in self.paths}
        names = {folder: set(os.listdir(folder)) for folder in folders if os.path.isdir(folder)}
        exists = [os.path.basename(p) in names.get(os.path.dirname(p), ()) for p in self.paths]
        return self.take(torch.tensor(exists).nonzero()[:, 0])

    def open(self, i: int) -> Image.Image:
        image = Image.open(self.paths[i])  # as in the official code, ignoring the EXIF rotation
        return image if self.crop is None else v2.functional.center_crop(image, [self.crop])

    def name(self, i: int) -> str:
        return str(self.paths[i])


@dataclass(frozen=True)
class Streamed:
    """Images that worker processes decode and resize in the background."""

    images: Images  # may include those of other splits
    members: Tensor  # indices [N] of this split's images
    resize: v2.Transform  # applied to PIL images
    shape: tuple[int, ...]  # [C, H, W] of the resized images
    n_workers: int  # number of worker processes; 0: the main process decodes

    @cached_property
    def targets(self) -> Tensor:
        return self.images.targets[self.members]

    def read(
        self, batches: Sequence[Tensor], device: torch.device, seed: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        members = [self.members[batch.cpu()].tolist() for batch in batches]
        batch_bytes = max(map(len, members), default=0) * math.prod(self.shape)
        n_workers = affordable_workers(self.n_workers, batch_bytes)
        loader = DataLoader(
            _Decoded(self.images, self.resize, self.shape, seed),
            batch_size=None,
            sampler=members,
            num_workers=n_workers,
            multiprocessing_context=START_METHOD if n_workers else None,
            pin_memory=device.type == "cuda",
            # otherwise, the workers' seed would be drawn from the global random state
            generator=torch.Generator(),
        )
        remedy = "fewer processes (kwargs.n_workers=) or smaller batches (kwargs.batch_size=)"
        decoded = iter(loader)
        with loader_errors(decoded, DataError, remedy):
            for batch in decoded:
                if isinstance(batch, DataError):
                    raise batch
                images, targets = batch
                yield images.to(device, non_blocking=True), targets.to(device, non_blocking=True)


@dataclass(frozen=True)
class _Decoded(Dataset):
    """Batches of images as uint8 tensors, which do not depend on the worker that reads them."""

    images: Images
    resize: v2.Transform
    shape: tuple[int, ...]
    seed: int

    def __getitem__(self, indices: list[int]) -> tuple[Tensor, Tensor] | DataError:
        """Return the images and targets at indices [B], or an error.

        Errors are not raised, because DataLoader would add the worker's traceback to the message.
        """
        try:
            return torch.stack([self._decode(i) for i in indices]), self.images.targets[indices]
        except DataError as error:
            return error

    def _decode(self, i: int) -> Tensor:
        try:
            image = self.images.open(i).convert("L" if self.shape[0] == 1 else "RGB")
        except UNREADABLE as error:
            raise DataError(
                f"cannot read image {self.images.name(i)}: {error}. Restore the file, or delete "
                "the data set's folder to download it again."
            ) from error
        with drawing_from(torch.Generator().manual_seed(derive_seed(self.seed, i))):
            pixels = v2.functional.pil_to_tensor(self.resize(image))
        if tuple(pixels.shape) != self.shape:
            raise DataError(
                f"image {self.images.name(i)} has shape {list(pixels.shape)}, expected "
                f"{list(self.shape)}: choose a `base_resize`."
            )
        return pixels


def draw_order(n: int, is_shuffled: bool, generator: torch.Generator) -> Tensor:
    """Indices [n] of all examples, shuffled or not, on the generator's device."""
    if is_shuffled:
        return torch.randperm(n, generator=generator, device=generator.device)
    return torch.arange(n, device=generator.device)


def draw_below(bounds: Tensor, generator: torch.Generator) -> Tensor:
    """Draw uniform integers [B] in [0, bound), or 0 if the bound is 0."""
    uniform = torch.rand(
        len(bounds), generator=generator, device=generator.device, dtype=torch.float64
    )
    return (uniform * bounds).long()


def n_to_hold_out(n: int, fraction: float) -> int:
    """Return how many of n examples to hold out for validation."""
    return max(1, round(fraction * n))


def hold_out(targets: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
    """Return the indices of the examples to keep and to hold out, the same on every call.

    If the targets are classes [N], the split is stratified. Raises ValueError if there are too few
    examples for every class to appear in both parts.
    """
    n_held_out = n_to_hold_out(len(targets), fraction)
    is_classes = not targets.is_floating_point()
    if is_classes:
        counts = targets.unique(return_counts=True)[1]
        if counts.min() < 2 or min(n_held_out, len(targets) - n_held_out) < len(counts):
            raise ValueError(
                f"val_fraction={fraction} holds out {n_held_out} of {len(targets)} examples of "
                f"{len(counts)} classes (the smallest class has {counts.min()}): choose a fraction "
                "that leaves examples of each class in both parts."
            )
    kept, held_out = train_test_split(
        torch.arange(len(targets)).numpy(),
        test_size=n_held_out,
        stratify=targets.numpy() if is_classes else None,
        random_state=SPLIT_SEED,
    )
    return torch.from_numpy(kept).sort().values, torch.from_numpy(held_out).sort().values
