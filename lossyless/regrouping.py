"""Batches of one size to batches of another."""

from collections.abc import Iterable, Iterator

from torch import Tensor


def regroup(batches: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """The same rows [..., *shape] in chunks of `size`, on the batches' device; the last is smaller.

    A chunk is memory of its own, so that it stays as it is when the maker of the batches reuses
    theirs, and whatever becomes of other chunks.
    """
    chunk: Tensor | None = None
    n = 0  # rows of `chunk` that are filled
    for batch in batches:
        while len(batch):
            if chunk is None:
                chunk, n = batch.new_empty(size, *batch.shape[1:]), 0
            taken, batch = batch[: size - n], batch[size - n :]
            chunk[n : n + len(taken)] = taken
            n += len(taken)
            if n == size:
                yield chunk
                chunk = None
    if chunk is not None:
        yield chunk[:n]
