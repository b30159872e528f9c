"""Data sets too large for memory: worker processes read images while the device works."""

import os
import sys
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from utils.data.images import ImageDataModule, hold_out
from utils.data.module import DataError, check_choice, derive_seed
from utils.data.resizing import RANDOM

# Said aloud because a job of a parallel sweep inherits joblib's way of starting processes, with
# which loaders cannot start theirs.
START_METHOD = "fork" if sys.platform == "linux" else "spawn"


class ImageSource(Protocol):
    """Images that are opened one by one, and their targets."""

    targets: Tensor  # [N] int64 or [N, n_outputs] float32

    def open(self, i: int) -> Image.Image: ...

    def name(self, i: int) -> str: ...  # for error messages


@dataclass(frozen=True)
class ImageFiles:
    """Image files with their targets."""

    paths: Sequence[str | Path]
    targets: Tensor

    @classmethod
    def of(cls, samples: Sequence[tuple[str | Path, int]]) -> "ImageFiles":
        """The files of (path, class) pairs, e.g. of a data set of torchvision with `loader=str`."""
        pairs = [samples[i] for i in range(len(samples))]
        classes = torch.tensor([int(c) for _, c in pairs], dtype=torch.int64)
        return cls([path for path, _ in pairs], classes)

    def take(self, indices: Tensor) -> "ImageFiles":
        """The files at some indices [N]."""
        return ImageFiles([self.paths[i] for i in indices.tolist()], self.targets[indices])

    def on_disk(self) -> "ImageFiles":
        """Those that are there: lists of files do not tell whether all were unpacked."""
        folders = {os.path.dirname(path) for path in self.paths}
        names = {folder: set(os.listdir(folder)) for folder in folders if os.path.isdir(folder)}
        is_there = [os.path.basename(p) in names.get(os.path.dirname(p), ()) for p in self.paths]
        return self.take(torch.tensor(is_there).nonzero()[:, 0])

    def open(self, i: int) -> Image.Image:
        return Image.open(self.paths[i])

    def name(self, i: int) -> str:
        return str(self.paths[i])


class StreamedImages(ImageDataModule):
    """Images on disk; see `ImageDataModule` for further parameters.

    Subclasses implement `open_splits`: an `ImageSource` for "train", "test" and, if the data set
    has a validation split of its own, "val". Workers decode and resize; augmentations run in
    batches on the device.

    Parameters
    ----------
    n_workers : int
        Processes that read images; 0: none but the main one.
    """

    def __init__(self, *, n_workers: int = 0, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.n_workers = n_workers

    @abstractmethod
    def open_splits(self) -> dict[str, ImageSource]:
        """The images of each split; no image is read yet."""

    @cached_property
    def splits(self) -> dict[str, tuple[ImageSource, Tensor]]:
        """For each split where its images come from, and which of those belong to it."""
        sources = self.open_splits()
        self.check_sizes({split: len(source.targets) for split, source in sources.items()})
        for split, source in sources.items():
            self.check_targets(split, source.targets, len(source.targets))
        splits = {s: (source, torch.arange(len(source.targets))) for s, source in sources.items()}
        if "val" not in splits:
            source = sources["train"]
            kept, held_out = hold_out(source.targets, self.val_fraction)
            splits["train"], splits["val"] = (source, kept), (source, held_out)
        return splits

    def setup(self, stage: str | None = None) -> None:
        """Find (or download) the data now instead of when they are first asked for."""
        _ = self.splits

    def n_examples(self, split: str) -> int:
        return len(self.splits[check_choice("split", split, self.splits)][1])

    def labels(self, split: str) -> Tensor:
        source, members = self.splits[split]
        return source.targets[members]

    def has_copies(self, split: str) -> bool:
        return super().has_copies(split) or (split == "train" and self.base_resize == RANDOM)

    def read(
        self, split: str, batches: Sequence[Tensor], device: torch.device, seed: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        source, members = self.splits[split]
        batches = [members[batch.cpu()] for batch in batches]
        return self.stream(source, split, batches, device, seed)

    def stream(
        self,
        source: ImageSource,
        split: str,
        batches: Sequence[Tensor],
        device: torch.device,
        seed: int = 0,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of the images of a source at some indices, resized as those of the split are."""
        loader = DataLoader(
            ResizedImages(source, self.resize(split), self._augment_shape, seed),
            batch_sampler=[batch.tolist() for batch in batches],
            num_workers=self.n_workers,
            multiprocessing_context=START_METHOD if self.n_workers else None,
            pin_memory=device.type == "cuda",
            # without it, the seed of the workers would be drawn from the global random state
            generator=torch.Generator(),
        )
        for images, targets in loader:
            yield images.to(device, non_blocking=True), targets.to(device, non_blocking=True)


class ResizedImages(Dataset):
    """Images as uint8 tensors of one shape, with their targets.

    Parameters
    ----------
    source : ImageSource
    resize : transformation of PIL images.
    shape : [C, H, W] of what it gives.
    seed : of what is random about it. An image comes out the same whichever worker reads it.
    """

    def __init__(
        self, source: ImageSource, resize: v2.Transform, shape: tuple[int, ...], seed: int = 0
    ) -> None:
        self.source = source
        self.resize = resize
        self.shape = shape
        self.seed = seed

    def __len__(self) -> int:
        return len(self.source.targets)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        try:
            image = self.source.open(i).convert("L" if self.shape[0] == 1 else "RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(
                f"cannot read image {self.source.name(i)}: {error}. Restore the file, or delete "
                "the folder of the data set to get it again."
            ) from error
        with torch.random.fork_rng(devices=()):  # torchvision draws from the global state
            torch.default_generator.manual_seed(derive_seed(self.seed, i))
            pixels = v2.functional.pil_to_tensor(self.resize(image))
        if tuple(pixels.shape) != self.shape:
            raise DataError(
                f"image {self.source.name(i)} is {list(pixels.shape)} where "
                f"{list(self.shape)} is expected: choose a `base_resize`."
            )
        return pixels, self.source.targets[i]
