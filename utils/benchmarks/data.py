"""Batches of Banana points, against a data set that makes one point at a time."""

from itertools import islice

import torch
from torch.utils.data import DataLoader, Dataset

from lossyless.base import Batch
from lossyless.torch_state import one_thread
from utils.benchmarks.comparison import Comparison, Goal, alternate
from utils.data.banana import BananaDataModule

BATCH_SIZE = 1024


class PointByPoint(Dataset):
    """The same points with the same operations, one `__getitem__` each."""

    def __init__(self, data: BananaDataModule):
        self.data = data
        self.generator = torch.Generator().manual_seed(data.seed)

    def __len__(self) -> int:
        return self.data.n_examples("train")

    def __getitem__(self, i: int) -> Batch:
        x = self.data.distribution.sample(1, self.generator)
        y = self.data.equivalence.maximal_invariant(x)
        aux = self.data.equivalence.representative(x)
        return Batch(x[0], y[0], aux[0])


def compare(is_quick: bool) -> list[Comparison]:
    """Training points per second, with the targets and representatives of VIC."""
    n_points, n_reference_batches = (102_400, 1) if is_quick else (1_024_000, 2)
    data = BananaDataModule(
        n_train=n_points, auxiliary="representative", batch_size=BATCH_SIZE, seed=0
    )
    loader = data.loader("train")
    reference = DataLoader(PointByPoint(data), BATCH_SIZE)

    def exhaust_ours() -> None:
        for _ in loader:
            pass

    def exhaust_reference() -> None:
        for _ in islice(reference, n_reference_batches):
            pass

    with one_thread():
        ours, theirs = alternate(exhaust_ours, exhaust_reference, 3 if is_quick else 7)
    n_reference = n_reference_batches * BATCH_SIZE
    return [
        Comparison(
            "Banana points in batches",
            "one __getitem__ each",
            "/s",
            [loader.n_examples / s for s in ours],
            [n_reference / s for s in theirs],
            Goal(low=100),
        )
    ]
