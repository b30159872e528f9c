"""Batches of transformed images, read by worker processes."""

import signal
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from lossyless.hub import SourceError
from lossyless.hub.images import image_names, image_paths
from lossyless.hub.labels import Labels, to_labels
from lossyless.parallel import (
    WorkerError,
    affordable_workers,
    available_cores,
    can_fork,
    loader_errors,
    without_interrupts,
)
from lossyless.pixels import UNREADABLE
from lossyless.progress import progress

OnError = Literal["raise", "skip"]

# DataLoader arguments that would change the examples or their order
FIXED_SETTINGS = ("batch_sampler", "collate_fn", "drop_last", "sampler", "shuffle")
# arguments that DataLoader accepts only with worker processes
WORKER_SETTINGS = ("multiprocessing_context", "persistent_workers", "prefetch_factor", "timeout")


class SkippedImage(SourceError):
    """An image that is skipped because it cannot be read."""


Collated = tuple[Tensor, Labels | None, list[str] | None, list[SkippedImage]] | SourceError


class Examples(Dataset):
    """Transformed images [3, side, side] of a data set, with their labels.

    An unusable example is returned as a `SourceError`: if the error were raised in a worker
    process, its message would contain the worker's traceback.

    Parameters
    ----------
    dataset : data set whose examples are (image, label, ...), (image,) or image; images are PIL
        images, or tensors made by `transform`.
    transform : maps a PIL image to a float tensor [3, side, side].
    side : height and width in pixels.
    has_labels : whether to return labels.
    on_error : what to do if an image cannot be read: "raise" an error, or "skip" it.
    """

    def __init__(
        self,
        dataset: Any,
        transform: Callable[[Image.Image], Tensor],
        side: int,
        *,
        has_labels: bool = False,
        on_error: OnError = "raise",
    ):
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise SourceError(
                "expected a folder, or a data set with `__len__` and `__getitem__`, found "
                f"{type(dataset).__name__}"
            )
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error: expected 'raise' or 'skip', found {on_error!r}")
        self.dataset, self.transform, self.side = dataset, transform, side
        self.has_labels, self.on_error = has_labels, on_error
        self._paths, self._names = image_paths(dataset), image_names(dataset)
        self.skipped: list[SourceError] = []  # errors of the images that `read_batches` skipped

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> tuple[Tensor, Any, str | None] | SourceError:
        try:
            example = self.dataset[i]
            image, *rest = example if isinstance(example, (tuple, list)) else (example,)
            if isinstance(image, Image.Image):
                image = self.transform(image)
        except UNREADABLE as error:
            reason = f"{type(error).__name__}: {error}"
            problem = f"{self._place(i)}: cannot be read as an image ({reason})"
            if self.on_error == "skip":
                return SkippedImage(problem)
            return SourceError(
                f"{problem}. Repair or remove it, or skip such images: on_error='skip', "
                "--on-error skip"
            )
        shape = (3, self.side, self.side)
        if isinstance(image, Tensor) and image.is_floating_point() and image.shape == shape:
            return image, rest[0] if rest else None, self._names and self._names[i]
        found = type(image).__name__
        if isinstance(image, (Tensor, np.ndarray)):
            found = f"{image.dtype} {list(image.shape)}"
        return SourceError(
            f"{self._place(i)}: expected a PIL image, or the float tensor {list(shape)} that "
            f"`transform` makes from it, found {found}. Create the data set without a transform "
            "or with `transform=compressor.transform`."
        )

    def _place(self, i: int) -> str:
        return self._paths[i] if self._paths else f"image {i} of {type(self.dataset).__name__}"

    def collate(self, examples: list[tuple[Tensor, Any, str | None] | SourceError]) -> Collated:
        """Collate images, labels (if `has_labels`), names (of files) and errors of skipped images.

        If an example can be neither used nor skipped, only its error is returned. Labels are
        converted to an array in the worker, because each tensor that a worker returns keeps a
        file open.
        """
        skipped = [example for example in examples if isinstance(example, SkippedImage)]
        good = [example for example in examples if not isinstance(example, SkippedImage)]
        for example in good:
            if isinstance(example, SourceError):
                return example
        images, labels, names = zip(*good, strict=True) if good else 3 * ((),)
        try:
            labels = to_labels(list(labels)) if self.has_labels else None
        except SourceError as error:
            return error
        X = default_collate(list(images)) if good else torch.empty(0, 3, self.side, self.side)
        return X, labels, list(names) if self._names else None, skipped


def read_batches(
    examples: Examples, *, device: torch.device, is_info: bool = False, **kwargs_dataloader: Any
) -> Iterator[tuple[Tensor, Labels | None, list[str] | None]]:
    """Yield batches of images [B, 3, side, side] on the CPU, labels [B, ...] and names, in order.

    Parameters
    ----------
    examples : images and labels.
    device : where the network runs; the default number of worker processes depends on it.
    is_info : whether to show progress.
    kwargs_dataloader : arguments of `torch.utils.data.DataLoader`; by default batches of 128. Fewer
        workers are used if shared memory or file handles are scarce, and none without `fork`.

    Raises SourceError if an image or label cannot be used, ValueError if a setting would change the
    examples or their order, and WorkerError if a worker dies, e.g. because memory runs out.
    """
    settings = _loader_settings(examples, device, kwargs_dataloader)
    loader = DataLoader(examples, collate_fn=examples.collate, **settings)
    with without_interrupts() if loader.num_workers else nullcontext():
        batches = iter(loader)
    remedy = (
        "fewer workers (none: num_workers=0, --workers 0) or smaller batches (batch_size=, "
        "--batch-size)"
    )
    with loader_errors(batches, WorkerError, remedy):
        yield from _usable(progress(batches, "Encoding") if is_info else batches, examples)


def _usable(
    batches: Iterable[Collated], examples: Examples
) -> Iterator[tuple[Tensor, Labels | None, list[str] | None]]:
    """Yield batches from `Examples.collate`; raise its errors, and warn about skipped images."""
    is_first = True
    for batch in batches:
        if isinstance(batch, SourceError):
            raise batch
        X, labels, names, skipped = batch
        if is_first and len(X) and X.min() >= 0 and X.max() <= 1:  # normalised black is below -1.4
            warnings.warn(
                "all pixels of the first batch lie in [0, 1], so they are not normalised for CLIP: "
                "create the data set with `transform=compressor.transform`, or without a transform",
                stacklevel=2,
            )
        is_first = False
        yield X, labels, names
        for error in skipped:
            warnings.warn(f"skipped {error}", stacklevel=2)
        examples.skipped += skipped
        if len(examples.skipped) == len(examples):
            raise SourceError(f"all {len(examples)} images are unusable, e.g. {error}")


def _loader_settings(
    examples: Examples, device: torch.device, kwargs_dataloader: dict[str, Any]
) -> dict[str, Any]:
    """Return the given DataLoader arguments and defaults, with fewer workers if necessary."""
    for name, value in kwargs_dataloader.items():
        is_refused = (name, value) in (("batch_size", None), ("in_order", False))
        if is_refused or (name in FIXED_SETTINGS and value):
            raise ValueError(
                f"kwargs_dataloader: {name} cannot be {value!r}: all examples are compressed in "
                "batches, in order. To compress only some, pass a torch.utils.data.Subset."
            )
    settings = {
        "batch_size": 128,
        "num_workers": _default_workers(device),
        "pin_memory": device.type == "cuda",
        # otherwise, DataLoader would draw the workers' seeds from the global generator
        "generator": torch.Generator(),
    } | {name: v for name, v in kwargs_dataloader.items() if name not in FIXED_SETTINGS}
    n_images = (
        min(settings["batch_size"], len(examples)) * (settings.get("prefetch_factor") or 2) // 2
    )
    n_bytes = n_images * 3 * examples.side**2 * 4  # float32
    n_workers = settings["num_workers"] if can_fork() else 0
    settings["num_workers"] = affordable_workers(n_workers, n_bytes)
    if settings["num_workers"] == 0:
        return {name: value for name, value in settings.items() if name not in WORKER_SETTINGS}
    # spawned workers would import `lossyless`, whose folder torch.hub removes from sys.path
    return {"multiprocessing_context": "fork", "worker_init_fn": _allow_interrupts} | settings


def _allow_interrupts(worker: int) -> None:
    """Let Ctrl-C end a worker once it has started; torch handles this silently."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _default_workers(device: torch.device) -> int:
    """Default number of workers: one per core, at most 16; fewer if CLIP needs the cores itself."""
    n_cores = available_cores()
    if device.type == "cpu":
        return max(1, n_cores // 4) if n_cores > 1 else 0
    return min(n_cores, 16)
