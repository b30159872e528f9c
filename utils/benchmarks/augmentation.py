"""Augmenting images in batches, against torchvision's transforms of one PIL image at a time."""

import torch
from torch import Tensor
from torchvision import transforms
from torchvision.transforms.v2 import functional as tvf

from lossyless.torch_state import one_thread
from utils.benchmarks.comparison import Comparison, Goal, alternate
from utils.data.augmentations import Augmentation

BATCH_SIZE = 128
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


def compare(is_quick: bool) -> list[Comparison]:
    """Images of augmented MNIST per second, on one core, from stored uint8 to float batches."""
    n_images, n_reference = (1_280, 128) if is_quick else (12_800, 1_280)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (n_images, 1, 28, 28), dtype=torch.uint8, generator=generator)
    augmentation = Augmentation(EQUIVALENCE)

    def augment_batch(batch: Tensor) -> Tensor:
        return tvf.resize(augmentation(batch.float() / 255, generator), [SIDE, SIDE])

    def augment_one_by_one(batch: Tensor) -> Tensor:
        return torch.stack([PER_IMAGE(image) for image in batch])

    with one_thread():
        ours, theirs = alternate(
            lambda: [augment_batch(batch) for batch in images.split(BATCH_SIZE)],
            lambda: [augment_one_by_one(b) for b in images[:n_reference].split(BATCH_SIZE)],
            3 if is_quick else 7,
        )
    return [
        Comparison(
            "augmented MNIST images in batches",
            "torchvision on PIL images",
            "/s",
            [n_images / s for s in ours],
            [n_reference / s for s in theirs],
            Goal(low=2.5),
        )
    ]
