"""Data sets whose examples can be read by their index."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lossyless.base import Batch
from utils.data.module import DataModule, spawn_generator


class IndexedDataModule(DataModule):
    """Subclasses say how examples are read, and how a batch is made of what was read."""

    @abstractmethod
    def read(
        self, split: str, batches: Sequence[Tensor], device: torch.device, seed: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs [B, ...] and targets of the examples whose indices each batch names, on `device`.

        Parameters
        ----------
        batches : int64 tensors [B] on `device`.
        seed : of what is random about how an example is read, if anything is.
        """

    @abstractmethod
    def make_batch(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        split: str,
        generator: torch.Generator,
        positive_generator: torch.Generator,
    ) -> Batch:
        """Make a batch of what was read; positives draw from their own generator."""

    def choose(
        self, split: str, order: Tensor, batch_size: int, generator: torch.Generator
    ) -> list[Tensor]:
        """The indices that each batch reads, when examples come in this `order` [N]."""
        return list(order.split(batch_size))

    def make_batches(
        self, split: str, *, batch_size: int, is_shuffled: bool, generator: torch.Generator
    ) -> Iterator[Batch]:
        n, device = self.n_examples(split), generator.device
        if is_shuffled:
            order = torch.randperm(n, generator=generator, device=device)
        else:
            order = torch.arange(n, device=device)
        positive_generator = spawn_generator(generator, "positive")
        batches = self.choose(split, order, batch_size, positive_generator)
        for inputs, targets in self.read(split, batches, device, generator.initial_seed()):
            yield self.make_batch(
                inputs,
                targets,
                split=split,
                generator=generator,
                positive_generator=positive_generator,
            )
