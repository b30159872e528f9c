"""Benchmarks of sampling Banana points and augmenting images in batches vs. one at a time."""

from collections import deque
from itertools import islice

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms.v2 import functional as tvf

from lossyless.base import Batch
from lossyless.torch_state import one_thread
from utils.benchmarks.comparison import Comparison, compare_speed
from utils.data.augmentations import Augmentation
from utils.data.banana import BananaDataModule

BATCH_SIZE = 1024
N_IMAGES_AT_ONCE = 128
SIDE = 32
EQUIVALENCE = ["rotation", "x_translation", "y_translation", "shear", "scale"]

PER_IMAGE = transforms.Compose(
    [
        transforms.ToPILImage(),
        transforms.RandomAffine(0, translate=(0.25, 0)),
        transforms.RandomAffine(0, translate=(0, 0.25)),
        transforms.RandomRotation(45),
        transforms.RandomAffine(0, scale=(0.6, 1.4)),
        transforms.RandomAffine(0, shear=25),
        transforms.Resize(SIDE),
        transforms.ToTensor(),
    ]
)


class PointByPoint(Dataset):
    """Draws points with the same operations as the loader, but one per `__getitem__`."""

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


@one_thread()
def compare(is_quick: bool) -> list[Comparison]:
    """Compare points drawn per second, including the targets and representatives that VIC needs."""
    n_points, n_batches, n_repeats = (102_400, 1, 3) if is_quick else (1_024_000, 2, 7)
    data = BananaDataModule(
        n_train=n_points, auxiliary="representative", batch_size=BATCH_SIZE, seed=0
    )
    loader, reference = data.loader("train"), DataLoader(PointByPoint(data), BATCH_SIZE)
    row = compare_speed(
        "Banana points in batches",
        "one __getitem__ each",
        lambda: deque(loader, maxlen=0),
        lambda: deque(islice(reference, n_batches), maxlen=0),
        sizes=(loader.n_examples, n_batches * BATCH_SIZE),
        n_repeats=n_repeats,
        low=100,
    )
    return [row]


@one_thread()
def compare_augmentation(is_quick: bool) -> list[Comparison]:
    """Compare the MNIST-sized images per second that one core augments, from uint8 to float."""
    n_images, n_reference, n_repeats = (1_280, 128, 3) if is_quick else (12_800, 1_280, 7)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (n_images, 1, 28, 28), dtype=torch.uint8, generator=generator)
    augmentation = Augmentation(EQUIVALENCE)

    def augment_batch(batch: Tensor) -> Tensor:
        return tvf.resize(augmentation(batch.float() / 255, generator), [SIDE, SIDE])

    def augment_one_by_one(batch: Tensor) -> Tensor:
        return torch.stack([PER_IMAGE(image) for image in batch])

    row = compare_speed(
        "augmented MNIST images in batches",
        "torchvision on PIL images",
        lambda: [augment_batch(batch) for batch in images.split(N_IMAGES_AT_ONCE)],
        lambda: [augment_one_by_one(b) for b in images[:n_reference].split(N_IMAGES_AT_ONCE)],
        sizes=(n_images, n_reference),
        n_repeats=n_repeats,
        low=2.5,
    )
    return [row]
