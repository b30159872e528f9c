"""Features of a frozen backbone as a data set: computed once and kept in a `FeatureCache`."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from lossyless.backbones import Backbone
from lossyless.base import Batch
from lossyless.progress import progress
from utils.data.examples import InMemory, draw_order
from utils.data.feature_cache import FeatureCache, array_file
from utils.data.images import ImageDataModule
from utils.data.module import DataError, DataModule
from utils.runs.stopwatch import Stopwatch

AUXILIARIES = ("none", "input", "target")  # possible without images


class FeatureDataModule(DataModule):
    """Features z [z_dim] that a frozen backbone extracts from images, with the images' targets.

    x is the feature of the (augmented) image; `Batch.aux` is x itself (input) or the target. The
    features of a split are computed when it is first used.

    Parameters
    ----------
    images : the images; the backbone processes them in batches of `images.eval_batch_size`.
    make_tower : returns the backbone; called whenever features are computed.
    z_dim : dimensionality of the backbone's features.
    cache : stores the features.
    device : device on which features are computed.
    n_copies : number of differently augmented or cropped copies of the training split. Epochs cycle
        through them. Without random augmentations or crops, there is only one copy.
    kwargs : see `DataModule`.

    Raises ValueError if the auxiliary variable needs images.
    """

    kind = "vector"

    def __init__(
        self,
        images: ImageDataModule,
        make_tower: Callable[[], Backbone],
        *,
        z_dim: int,
        cache: FeatureCache,
        device: torch.device,
        n_copies: int = 1,
        **kwargs: object,
    ) -> None:
        super().__init__(data_dir=images.data_dir, **kwargs)
        if self.auxiliary not in AUXILIARIES:
            raise ValueError(
                f"a distortion that compares against {self.auxiliary!r} needs images, but a frozen "
                "tower outputs features: choose distortion=lossy_Z, or tower=none"
            )
        self.images = images
        self.shape = (z_dim,)
        self.task, self.n_outputs = images.task, images.n_outputs
        self.is_labelled = images.is_labelled
        self.n_copies = n_copies
        self._make_tower = make_tower
        self._cache = cache
        self._compute_on = device
        # for each split: number and features of the latest copy, and seconds per image
        self._loaded: dict[str, tuple[int, InMemory, float]] = {}

    def n_examples(self, split: str) -> int:
        return self.images.n_examples(split)

    def make_batches(
        self, split: str, *, batch_size: int, is_shuffled: bool, generator: torch.Generator
    ) -> Iterator[Batch]:
        features, _ = self._load(split)
        order = draw_order(len(features.targets), is_shuffled, generator)
        for x, y in features.read(order.split(batch_size), generator.device):
            yield Batch(x, y, {"none": None, "input": x, "target": y}[self.auxiliary])

    def encoder_time(self, split: str) -> float:
        """Seconds per image that the backbone took to compute the features of a split."""
        return self._load(split)[1]

    def _load(self, split: str) -> tuple[InMemory, float]:
        """Return a split's features, computed if necessary, and the seconds per image they took."""
        has_copies = self.images.has_copies(split)
        number = self.copy_number if split == "train" and has_copies else 0
        if self._loaded.get(split, (None,))[0] != number:
            which = split, number, self.seed if has_copies else None
            features = self._cache.get(
                *which, compute=lambda folder: self._compute(folder, split, number)
            )
            found, expected = list(features.x.shape), [self.n_examples(split), *self.shape]
            if found != expected:
                raise DataError(
                    f"cached features {self._cache.path(*which)} have shape {found}, expected "
                    f"{expected}: they were computed from other images. Delete the folder to "
                    "compute them again."
                )
            self._loaded[split] = number, InMemory(features.x, features.y), features.seconds
        return self._loaded[split][1:]

    def _compute(self, folder: Path, split: str, number: int) -> dict:
        """Write the features and targets of one copy of a split to a folder."""
        device = self._compute_on
        tower = self._make_tower().to(device)
        loader = self.images.loader(split, device=device, epoch=number, shuffle=False)
        n = loader.n_examples
        print(
            f"computing features of {n:,} images ({split}) on {device}, once: {self._cache.folder}",
            flush=True,
        )
        x = np.lib.format.open_memmap(
            array_file(folder, "features"), "w+", dtype=np.float32, shape=(n, *self.shape)
        )
        targets, end, watch = [], 0, Stopwatch(device)
        for batch in progress(loader, f"features {self._cache.label} {split}"):
            with watch:
                features = tower(batch.x)
            if not features.isfinite().all():
                raise DataError(
                    f"features of {split!r} are not finite: check the weights of the tower"
                )
            start, end = end, end + len(batch.x)
            x[start:end] = features.cpu().numpy()
            targets.append(batch.y.cpu())
        x.flush()
        np.save(array_file(folder, "targets"), torch.cat(targets).numpy())
        return {"seconds_per_image": watch.seconds / n, "device": device.type}
