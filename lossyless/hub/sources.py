"""Images as the network takes them, of any data set in torchvision's style, in batches."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from lossyless.hub.errors import SourceError
from lossyless.hub.folders import file_paths
from lossyless.hub.pixels import to_8_bits
from lossyless.parallel import available_cores, can_fork

#: how PIL says that a file is not an image, or not a whole one
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
#: arguments of DataLoader that cannot have other values: they decide what is in a file
FIXED_SETTINGS = {
    "collate_fn": None,
    "shuffle": False,
    "sampler": None,
    "batch_sampler": None,
    "drop_last": False,
    "in_order": True,
}


class Examples(Dataset):
    """A data set's images as the network takes them, [3, side, side], with their labels.

    Parameters
    ----------
    dataset : examples (image, label, ...), (image,) or image. Images are PIL images, or tensors
        that `transform` has already made.
    transform : PIL image to float tensor [3, side, side].
    side : pixels.
    """

    def __init__(self, dataset: Any, transform: Callable[[Image.Image], Tensor], side: int):
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise SourceError(
                "expected a folder, or a data set with a length and examples by index, found "
                f"{type(dataset).__name__}"
            )
        self.dataset = dataset
        self.transform = transform
        self.side = side

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> tuple[Tensor, Any] | SourceError:
        """The example, or what is wrong with it: raised here, the error of a worker process would
        carry the worker's traceback in its message."""
        try:
            example = self.dataset[i]
            image, *rest = example if isinstance(example, (tuple, list)) else (example,)
            if isinstance(image, Image.Image):
                image = self.transform(to_8_bits(image))
        except UNREADABLE as error:
            return SourceError(
                f"{self._name(i)}: cannot be read as an image ({type(error).__name__}: {error}). "
                "Repair or remove it."
            )
        if problem := self._problem(image):
            return SourceError(f"{self._name(i)}: {problem}")
        return image, rest[0] if rest else None

    def _name(self, i: int) -> str:
        paths = file_paths(self.dataset)
        return f"image {i} of {type(self.dataset).__name__}" if paths is None else str(paths[i])

    def _problem(self, image: Any) -> str | None:
        shape = (3, self.side, self.side)
        if isinstance(image, Tensor) and image.is_floating_point() and image.shape == shape:
            return None
        found = type(image).__name__
        if isinstance(image, (Tensor, np.ndarray)):
            found = f"{image.dtype} {list(image.shape)}"
        return (
            f"expected a PIL image, or the float tensor {list(shape)} that the compressor's "
            f"transform makes of one, found {found}. Give the data set no transform, or "
            "`transform=compressor.transform`."
        )


def read_batches(
    examples: Examples, *, device: torch.device, **kwargs_dataloader: Any
) -> Iterator[tuple[Tensor, list[Any]]]:
    """Batches of images [B, 3, side, side] on the CPU and their labels, in the data set's order.

    Parameters
    ----------
    examples : images and labels.
    device : where the network runs, which decides how many processes read.
    kwargs_dataloader : for `torch.utils.data.DataLoader`; by default batches of 128. Where
        processes cannot be forked, this one reads.

    Raises
    ------
    SourceError
        An image cannot be read.
    ValueError
        A setting would change which examples there are, or their order.
    """
    settings = {
        "batch_size": 128,
        "num_workers": default_workers(device),
        "pin_memory": device.type == "cuda",
        # without it, the seed of the workers would be drawn from the global random state
        "generator": torch.Generator(),
    } | _checked(kwargs_dataloader)
    if not can_fork():
        settings["num_workers"] = 0
    if settings["num_workers"] > 0:
        # spawned workers would import this package again, which torch.hub took from the path
        settings.setdefault("multiprocessing_context", "fork")
    for i, batch in enumerate(DataLoader(examples, collate_fn=_collate, **settings)):
        if isinstance(batch, SourceError):
            raise batch
        if i == 0:
            _warn_if_unnormalised(batch[0])
        yield batch


def _warn_if_unnormalised(images: Tensor) -> None:
    """Normalised images have negative pixels: black is below -1.4 in every channel."""
    if images.min() >= 0 and images.max() <= 1:
        warnings.warn(
            "all pixels of the first images lie in [0, 1], so they are not normalised as CLIP's "
            "images are: give the data set `transform=compressor.transform`, or none",
            stacklevel=2,
        )


def default_workers(device: torch.device) -> int:
    """Processes that read images: all cores feed a GPU; a network on the CPU needs most of them."""
    if not can_fork():
        return 0
    n_cores = available_cores()
    if device.type == "cpu":
        return max(1, n_cores // 4) if n_cores > 1 else 0
    return min(n_cores, 16)


def _checked(kwargs_dataloader: dict[str, Any]) -> dict[str, Any]:
    """The settings without those that are fixed, which may say what they are fixed to."""
    for name, value in FIXED_SETTINGS.items():
        if kwargs_dataloader.get(name, value) not in (None, value):
            raise ValueError(
                f"kwargs_dataloader: {name} cannot be {kwargs_dataloader[name]!r}: a file holds "
                "all examples in the order of the data set. To compress others, give another data "
                "set, for instance a torch.utils.data.Subset."
            )
    if kwargs_dataloader.get("batch_size", 1) is None:
        raise ValueError("kwargs_dataloader: batch_size cannot be None: images go in batches")
    return {name: v for name, v in kwargs_dataloader.items() if name not in FIXED_SETTINGS}


def _collate(examples: list[tuple[Tensor, Any] | SourceError]):
    for example in examples:
        if isinstance(example, SourceError):
            return example
    images, labels = zip(*examples, strict=True)
    return default_collate(list(images)), list(labels)
