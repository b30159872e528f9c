"""Base class of all data sets: splits, seeds, batches on the device and auxiliary variables."""

import copy
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Self

import pytorch_lightning as pl
import torch
from torch import Tensor

from lossyless.base import Batch
from utils.configs.checks import check_known

SPLITS = ("train", "val", "test")

# Content of `Batch.aux`, the target of the distortion:
AUXILIARIES = (
    "none",  # nothing
    "input",  # X itself (VC)
    "representative",  # the fixed member of X's equivalence class, e.g. the unaugmented image (VIC)
    "positive",  # another random member of X's equivalence class (BINCE)
    "target",  # the target Y of the downstream task (supervised)
)


class DataError(RuntimeError):
    """A data set is missing, incomplete or damaged; the message names the file and the remedy."""


class BatchLoader:
    """Sized iterable of `Batch` that yields exactly the same batches each time it is iterated over.

    Each iteration has its own generator on `device`; the global random state is neither used nor
    changed.

    Parameters
    ----------
    make_batches : returns an iterator over the batches; its only source of randomness is its
        argument `generator`, which is on the same device as the batches.
    n_examples, batch_size : total number of examples, and number per batch (the last batch may be
        smaller).
    is_drop_single : whether to drop the last batch if it has only one example (hence no variance
        and no negatives), unless it is the only batch.

    Attributes
    ----------
    n_examples : number of examples per iteration, not counting a dropped one.
    """

    def __init__(
        self,
        make_batches: Callable[..., Iterator[Batch]],
        *,
        n_examples: int,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        is_drop_single: bool = False,
    ) -> None:
        is_dropped = is_drop_single and n_examples > batch_size and n_examples % batch_size == 1
        self.n_examples = n_examples - is_dropped
        self.make_batches = make_batches
        self.batch_size = batch_size
        self.seed = seed
        self.device = torch.device(device)

    def __len__(self) -> int:
        return -(-self.n_examples // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        generator = torch.Generator(self.device).manual_seed(self.seed)
        return islice(self.make_batches(generator=generator), len(self))


class SharedLoader:
    """One process's share of every batch of a loader.

    Together, the processes see the same batches as a single process would, except for examples of
    an incomplete last batch that cannot be shared equally. Each process makes the whole batch,
    drawing all of its random numbers, and keeps its own share.

    Raises ValueError if a full batch cannot be shared equally.
    """

    def __init__(self, loader: BatchLoader, rank: int, n_processes: int) -> None:
        size = min(loader.batch_size, loader.n_examples)
        if size % n_processes:
            raise ValueError(
                f"a training batch of {size} examples cannot be shared equally by "
                f"{n_processes} devices: choose a batch_size that is a multiple of "
                f"{n_processes}, and at most as large as the training split"
            )
        self.loader = loader
        self.rank = rank
        self.n_processes = n_processes

    def __len__(self) -> int:
        n_last = self.loader.n_examples % self.loader.batch_size
        return len(self.loader) - (0 < n_last < self.n_processes)

    def __iter__(self) -> Iterator[Batch]:
        for batch in islice(self.loader, len(self)):
            yield Batch(*(None if part is None else self._share(part) for part in batch))

    def _share(self, part: Tensor) -> Tensor:
        size = len(part) // self.n_processes
        return part[self.rank * size : (self.rank + 1) * size]


class DataModule(pl.LightningDataModule, ABC):
    """Base class of all data sets; subclasses implement `n_examples` and `make_batches`.

    Parameters
    ----------
    auxiliary : one of `AUXILIARIES`: the content of `Batch.aux`.
    batch_size, eval_batch_size : number of examples per batch with and without shuffling. With
        positives, `eval_batch_size` is replaced with `batch_size`, because a contrastive loss
        depends on the number of examples in the batch.
    seed : seeds shuffling, augmentation and sampling, but not the splits of real data sets.
    data_dir : folder for downloaded data sets; "~" and "$VARIABLE" are expanded.

    Attributes
    ----------
    shape : shape of one example. Images have values in [0, 1]; encoders may normalise them.
    kind : {"vector", "bw_image", "colour_image"}
    task : {"classification", "regression"}
    n_outputs : number of classes, or dimensionality of the target.
    is_labelled : whether the training split has targets.
    input_follows_auxiliary : whether x depends on the auxiliary variable, so that predictors get
        different inputs from those on which compressors are evaluated.
    n_copies : number of stored copies of the training split, through which shuffled epochs cycle.
    copy_number : the copy that `make_batches` should use.
    """

    shape: tuple[int, ...]
    kind: str
    task: str
    n_outputs: int
    is_labelled = True
    input_follows_auxiliary = False
    n_copies = 1
    copy_number = 0

    def __init__(
        self,
        *,
        auxiliary: str = "input",
        batch_size: int = 128,
        eval_batch_size: int = 1024,
        seed: int = 123,
        data_dir: str = "data",
    ) -> None:
        super().__init__()
        check_known("auxiliary", [auxiliary], AUXILIARIES)
        self.auxiliary = auxiliary
        self.batch_size = batch_size
        self.eval_batch_size = batch_size if auxiliary == "positive" else eval_batch_size
        self.seed = seed
        self.data_dir = os.path.expanduser(os.path.expandvars(data_dir))

    def with_auxiliary(self, auxiliary: str) -> Self:
        """Return a copy with another auxiliary variable."""
        other = copy.copy(self)
        other.auxiliary = auxiliary
        return other

    def setup(self, stage: str | None = None) -> None:
        """Find or download the data now rather than on first use."""
        self.n_examples("train")

    @abstractmethod
    def n_examples(self, split: str) -> int:
        """Number of examples in a split."""

    @abstractmethod
    def make_batches(
        self, split: str, *, batch_size: int, is_shuffled: bool, generator: torch.Generator
    ) -> Iterator[Batch]:
        """Yield all batches of a split on `generator.device`; only `generator` adds randomness."""

    def loader(
        self,
        split: str,
        *,
        device: torch.device | str = "cpu",
        epoch: int = 0,
        shuffle: bool | None = None,
    ) -> BatchLoader:
        """Return a loader for `device`; batches depend only on seed, split, epoch and `shuffle`.

        Parameters
        ----------
        epoch : seeds shuffling, augmentation and sampling of the training split; evaluation splits
            are the same in every epoch.
        shuffle : whether to shuffle and use batches of `batch_size`, dropping a last batch of one
            example. Otherwise, all examples come in their fixed order, in batches of
            `eval_batch_size`; `epoch=k, shuffle=False` yields the k-th augmented copy of the
            training split. None: only the training split is shuffled.
        """
        check_known("split", [split], SPLITS)
        is_shuffled = split == "train" if shuffle is None else shuffle
        batch_size = self.batch_size if is_shuffled else self.eval_batch_size
        n_examples = self.n_examples(split)  # loads the data, which the copy shares
        data = copy.copy(self)
        data.copy_number = epoch % self.n_copies if is_shuffled else epoch
        return BatchLoader(
            partial(data.make_batches, split, batch_size=batch_size, is_shuffled=is_shuffled),
            n_examples=n_examples,
            batch_size=batch_size,
            seed=derive_seed(self.seed, split, epoch if split == "train" else 0),
            device=device,
            is_drop_single=is_shuffled,
        )

    def train_dataloader(self) -> BatchLoader | SharedLoader:
        """Return a loader for the current epoch (always the first epoch with `overfit_batches`).

        In distributed training, each process gets its share of every batch. Raises ValueError if
        the trainer would reuse the batches in later epochs.
        """
        if self.trainer.reload_dataloaders_every_n_epochs != 1:
            raise ValueError(
                "Each epoch has its own training batches: set the trainer's "
                "reload_dataloaders_every_n_epochs=1, got "
                f"{self.trainer.reload_dataloaders_every_n_epochs}."
            )
        epoch = 0 if self.trainer.overfit_batches else self.trainer.current_epoch
        loader = self.loader("train", device=self._device, epoch=epoch)
        if self.trainer.world_size == 1:
            return loader
        return SharedLoader(loader, self.trainer.global_rank, self.trainer.world_size)

    def val_dataloader(self) -> BatchLoader:
        return self.loader("val", device=self._device)

    def test_dataloader(self) -> BatchLoader:
        return self.loader("test", device=self._device)

    @property
    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device


def derive_seed(*parts: int | str) -> int:
    """Derive a 63-bit seed from a tuple such as (seed, split, epoch), the same on every machine."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def spawn_generator(generator: torch.Generator, name: str) -> torch.Generator:
    """Make an independent generator; the given one is not changed.

    Positives have a generator of their own, so that X does not depend on the auxiliary variable.
    """
    seed = derive_seed(generator.initial_seed(), name)
    return torch.Generator(generator.device).manual_seed(seed)
