"""Image data sets: functions, referenced in conf/data, that return an `ImageDataModule`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from utils.data.downloads import open_or_download
from utils.data.examples import Images, InMemory, n_to_hold_out
from utils.data.module import DataError

T = TypeVar("T")
Opened = Mapping[str, InMemory | Images]


@dataclass(frozen=True)
class Source:
    """Where images and targets come from; for kind, task and is_labelled, see `DataModule`."""

    name: str  # used in messages and caches
    #: given the data folder, returns the images of "train" and, if there are any, of "val" and
    #: "test", either in memory (uint8 [N, C, H, W]) or to be opened one by one
    open: Callable[[Path], Opened]
    n_outputs: int  # number of classes, or dimensionality of the target
    sizes: Mapping[str, int] = field(default_factory=dict)  # sizes of the original splits
    kind: str = "colour_image"
    task: str = "classification"
    is_labelled: bool = True
    augment_side: int | None = None  # side at which images are augmented; None: the final side
    how_to_restore: str = (  # what to do when images are missing
        "Downloading or unpacking was interrupted, or files were deleted: delete this data set's "
        "folder there and try again."
    )

    def open_checked(
        self, data_dir: Path, *, is_complete: bool, val_fraction: float
    ) -> dict[str, InMemory | Images]:
        """Open the images of each split.

        Raises DataError if a split is empty or, with `is_complete`, does not have its original
        size, and ValueError if the targets do not match the task.
        """
        images = dict(self.open(data_dir))
        for split, found in images.items():
            self._check_targets(split, found.targets)
        n_found = {split: len(found.targets) for split, found in images.items()}
        wrong = [
            f"{n_found.get(split, 0)} of {n} images of {split!r}"
            for split, n in self.sizes.items()
            if not n_found.get(split) or (is_complete and n_found[split] != n)
        ]
        if wrong:
            message = f"{self.name}: found {', '.join(wrong)} in {data_dir}. {self.how_to_restore}"
            if all(n_found.get(split) for split in self.sizes):
                n_train = n_found["train"]
                if "val" not in n_found:
                    n_train -= n_to_hold_out(n_train, val_fraction)
                message += (
                    "\nTo use only these images, add\n    data_feat.kwargs.is_complete=false "
                    f"data_feat.length={n_train}\n"
                    "and likewise for data_pred if it uses this data set."
                )
            raise DataError(message)
        return images

    def _check_targets(self, split: str, targets: Tensor) -> None:
        if self.task == "regression":
            expected = f"float32 [N, {self.n_outputs}]"
            is_right = targets.dtype == torch.float32 and targets.shape[1:] == (self.n_outputs,)
        else:
            lowest = 0 if self.is_labelled or split == "test" else -1
            expected = f"int64 [N] in [{lowest}, {self.n_outputs})"
            is_class = (lowest <= targets) & (targets < self.n_outputs)
            is_right = targets.dtype == torch.int64 and targets.ndim == 1 and is_class.all()
        if not is_right:
            raise ValueError(
                f"Targets of split {split!r} must be {expected}, got {targets.dtype} "
                f"{list(targets.shape)} with values from {targets.min()} to {targets.max()}."
            )


def opener(
    original: Callable[..., T],
    parts: Mapping[str, object],
    convert: Callable[[T], InMemory | Images],
    **options: str,
) -> Callable[[Path], Opened]:
    """Make `Source.open` for a torchvision data set, which is downloaded if it is missing.

    Parameters
    ----------
    original : torchvision's class, or a function with the same arguments: data folder, part,
        `download`.
    parts : the second argument of `original` for each split.
    convert : turns what `original` returns into images.
    options : `name`, `size` and `advice` of `open_or_download`.
    """

    def open_part(data_dir: Path, part: object) -> InMemory | Images:
        return convert(
            open_or_download(
                lambda download: original(data_dir, part, download=download),
                folder=data_dir,
                **options,
            )
        )

    return lambda data_dir: {split: open_part(data_dir, part) for split, part in parts.items()}
