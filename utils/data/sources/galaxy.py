"""Galaxy Zoo, as in Kaggle's Galaxy Challenge (Willett et al. 2013, https://arxiv.org/abs/1308.3496).

https://www.kaggle.com/c/galaxy-zoo-the-galaxy-challenge
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from utils.data import kaggle
from utils.data.decoded import from_pixels
from utils.data.downloads import find_or_download
from utils.data.examples import ImageFiles, hold_out
from utils.data.images import ImageDataModule
from utils.data.module import DataError
from utils.data.sources import Source

COMPETITION = "galaxy-zoo-the-galaxy-challenge"
ID = "GalaxyID"
# number of answers to each of the 11 questions of the decision tree
N_ANSWERS = (3, 2, 2, 2, 4, 2, 3, 7, 3, 3, 6)
ANSWERS = tuple(f"Class{q}.{a}" for q, n in enumerate(N_ANSWERS, 1) for a in range(1, n + 1))
ORIGINAL_SIDE = 424
TEST_FRACTION = 0.05
IMAGES, SOLUTIONS = "images_training_rev1", "training_solutions_rev1.csv"
KAGGLE_IMAGES = "images_test_rev1"
SIZES = {"train": 61_578}
OFFLINE_SIZES = {"train": 58_499, "test": 3_079}
N_KAGGLE_TEST = 79_975
ZIP_FILES = {  # the competition's files, by content, and their sizes
    IMAGES: ("images_training_rev1.zip", "0.8 GB"),
    SOLUTIONS: ("training_solutions_rev1.zip", "5 MB"),
    KAGGLE_IMAGES: ("images_test_rev1.zip", "1.0 GB"),
}
HOW_TO_RESTORE = (
    f"Download the files from https://www.kaggle.com/c/{COMPETITION}/data and unpack them so that "
    f"the data folder contains galaxyzoo/{SOLUTIONS}, galaxyzoo/{IMAGES}/100008.jpg ... (61,578 "
    f"images) and, for submissions only, galaxyzoo/{KAGGLE_IMAGES}/100018.jpg ... (79,975 images)."
)


def galaxy(*, crop: int = ORIGINAL_SIDE, **kwargs: object) -> ImageDataModule:
    """Photographs of galaxies, 424x424 pixels, with 37 vote fractions in [0, 1] as targets.

    A fraction `val_fraction` of the 61,578 labelled images forms the validation split, which is the
    same for all seeds. Kaggle does not publish the targets of its 79,975 test images, so the
    validation split is also the test split. Kaggle scores a submission by the square root of the
    loss on its own test images; see the mode `kaggle_submission` of aggregate.py. `galaxy_offline`
    has its own test split.

    Parameters
    ----------
    crop : side in pixels of the central square to which the original images are cropped.
    kwargs : see `ImageDataModule`.
    """
    return _galaxy("Galaxy", SIZES, crop, **kwargs)


def galaxy_offline(*, crop: int = ORIGINAL_SIDE, **kwargs: object) -> ImageDataModule:
    """Like `galaxy`, but the test split is 5 % of the labelled images (3,079)."""
    return _galaxy("GalaxyOffline", OFFLINE_SIZES, crop, **kwargs)


def _galaxy(name: str, sizes: Mapping[str, int], crop: int, **kwargs: object) -> ImageDataModule:
    if not 1 <= crop <= ORIGINAL_SIDE:
        raise ValueError(f"crop must lie between 1 and {ORIGINAL_SIDE} pixels, got {crop}.")

    def open_set(data_dir: Path) -> dict[str, ImageFiles]:
        ids, answers = read_solutions(_find(data_dir, SOLUTIONS))
        folder = _find(data_dir, IMAGES)
        images = ImageFiles([folder / f"{i}.jpg" for i in ids.tolist()], answers, crop)
        if "test" not in sizes:
            return {"train": images.on_disk()}
        parts = hold_out(answers, TEST_FRACTION)  # the same even if image files are missing
        pairs = zip(("train", "test"), parts, strict=True)
        return {split: images.take(part).on_disk() for split, part in pairs}

    source = Source(
        name,
        open_set,
        n_outputs=len(ANSWERS),
        sizes=sizes,
        task="regression",
        how_to_restore=HOW_TO_RESTORE,
    )
    return ImageDataModule(source, **kwargs)


def kaggle_test_batches(
    data: ImageDataModule, crop: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield Kaggle's test images, preprocessed like unaugmented images of `data`, and their ids.

    Raises DataError if images are missing.
    """
    folder = _find(Path(data.data_dir), KAGGLE_IMAGES)
    paths = sorted(folder.glob("[0-9]*.jpg"), key=lambda path: int(path.stem))
    if len(paths) != N_KAGGLE_TEST:
        raise DataError(
            f"found {len(paths)} of {N_KAGGLE_TEST} images in {folder}: unpacking was interrupted, "
            f"or files were deleted. Delete the folder and try again. {HOW_TO_RESTORE}"
        )
    ids = torch.tensor([int(path.stem) for path in paths])
    order = torch.arange(len(ids))
    examples = data.select(ImageFiles(paths, ids, crop), order, "test")
    for pixels, found in examples.read(order.split(data.eval_batch_size), device):
        yield from_pixels(pixels), found


def _find(data_dir: Path, content: str) -> Path:
    """Path of one of the competition's files or folders, downloaded if it is missing."""
    folder = data_dir / "galaxyzoo"
    zip_file, size = ZIP_FILES[content]
    return find_or_download(
        content,
        lambda: kaggle.download(COMPETITION, zip_file, folder),
        name=f"Galaxy Zoo {content}",
        size=size,
        folder=folder,
        advice=HOW_TO_RESTORE,
    )


def read_solutions(path: Path) -> tuple[Tensor, Tensor]:
    """Return the sorted ids int64 [N] of the labelled galaxies, and vote fractions float32 [N, 37].

    Raises DataError if columns are missing or values are not fractions.
    """
    try:
        table = pd.read_csv(path).sort_values(ID)
        answers = table[list(ANSWERS)].to_numpy(np.float32)
        ids = table[ID].to_numpy(np.int64)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} is damaged: {error!r}. {HOW_TO_RESTORE}") from error
    is_right = ((answers >= 0) & (answers <= 1)).all(1)  # false for NaN, as in truncated lines
    if not is_right.all():
        raise DataError(
            f"{path} is damaged: galaxy {ids[~is_right][0]} does not have {len(ANSWERS)} values in "
            f"[0, 1]. {HOW_TO_RESTORE}"
        )
    return torch.tensor(ids), torch.tensor(answers)
