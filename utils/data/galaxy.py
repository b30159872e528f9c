"""Galaxy Zoo, as in Kaggle's Galaxy Challenge (Willett et al. 2013, https://arxiv.org/abs/1308.3496).

https://www.kaggle.com/c/galaxy-zoo-the-galaxy-challenge
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torchvision.transforms import v2

from utils.data import kaggle
from utils.data.downloads import open_or_download
from utils.data.images import hold_out
from utils.data.module import DataError
from utils.data.streamed import ImageFiles, StreamedImages

COMPETITION = "galaxy-zoo-the-galaxy-challenge"
ID = "GalaxyID"
# how many answers there are to each of the 11 questions of the decision tree
N_ANSWERS = (3, 2, 2, 2, 4, 2, 3, 7, 3, 3, 6)
ANSWERS = tuple(f"Class{q}.{a}" for q, n in enumerate(N_ANSWERS, 1) for a in range(1, n + 1))
ORIGINAL_SIDE = 424
TEST_FRACTION = 0.05
IMAGES, SOLUTIONS = "images_training_rev1", "training_solutions_rev1.csv"
KAGGLE_IMAGES = "images_test_rev1"
ZIP_FILES = {  # which file of the competition has what, and its size
    IMAGES: ("images_training_rev1.zip", "0.8 GB"),
    SOLUTIONS: ("training_solutions_rev1.zip", "5 MB"),
    KAGGLE_IMAGES: ("images_test_rev1.zip", "1.0 GB"),
}
HOW_TO_RESTORE = (
    f"Download the files from https://www.kaggle.com/c/{COMPETITION}/data and unpack them such "
    f"that the data folder has galaxyzoo/{SOLUTIONS}, galaxyzoo/{IMAGES}/100008.jpg ... (61,578 "
    f"images) and, for submissions only, galaxyzoo/{KAGGLE_IMAGES}/100018.jpg ... (79,975 images)."
)


class GalaxyDataModule(StreamedImages):
    """Photographs of galaxies, 424x424; what shares of volunteers saw in them (37 in [0, 1]).

    `val_fraction` of the 61,578 labelled images are the validation split, at random and the same
    for all seeds. Kaggle keeps the targets of its 79,975 test images: the test split repeats the
    validation split, and a test loss is the square of the score of a submission (mode
    `kaggle_submission` of aggregate.py). See `GalaxyOfflineDataModule` for a test split of its own.

    Parameters
    ----------
    crop : int
        Side of the centre of the original image that is used: all of it, or less of the sky.
    kwargs
        See `StreamedImages`.
    """

    kind = "colour_image"
    task = "regression"
    n_outputs = len(ANSWERS)
    SIZES = {"train": 61_578}
    N_KAGGLE_TEST = 79_975
    HOW_TO_RESTORE = HOW_TO_RESTORE

    def __init__(
        self,
        *,
        side: int = 128,
        crop: int = ORIGINAL_SIDE,
        base_resize: str = "resize",
        **kwargs: object,
    ) -> None:
        super().__init__(side=side, base_resize=base_resize, **kwargs)
        if not 1 <= crop <= ORIGINAL_SIDE:
            raise ValueError(f"crop must lie in 1 to {ORIGINAL_SIDE} pixels, got {crop}.")
        self.crop = v2.CenterCrop(crop)

    @property
    def folder(self) -> Path:
        """Where the files of the competition are."""
        return Path(self.data_dir) / "galaxyzoo"

    def resize(self, split: str) -> v2.Transform:
        return v2.Compose([self.crop, super().resize(split)])

    @cached_property
    def splits(self) -> dict[str, tuple[ImageFiles, Tensor]]:
        splits = super().splits
        return {"test": splits["val"]} | splits

    def open_splits(self) -> dict[str, ImageFiles]:
        return {"train": self._labelled().on_disk()}

    def _labelled(self) -> ImageFiles:
        """All labelled images, whether or not they are there."""
        self._find(SOLUTIONS)
        self._find(IMAGES)
        ids, shares = read_solutions(self.folder / SOLUTIONS)
        return ImageFiles([self.folder / IMAGES / f"{i}.jpg" for i in ids.tolist()], shares)

    def kaggle_test_source(self) -> ImageFiles:
        """Kaggle's unlabelled test images; in place of targets their ids, int64 [N]."""
        self._find(KAGGLE_IMAGES)
        files = (self.folder / KAGGLE_IMAGES).glob("[0-9]*.jpg")
        paths = sorted(files, key=lambda path: int(path.stem))
        if len(paths) != self.N_KAGGLE_TEST:
            raise DataError(
                f"there are {len(paths)} of {self.N_KAGGLE_TEST} images in "
                f"{self.folder / KAGGLE_IMAGES}: unpacking did not finish, or files were deleted. "
                f"Delete the folder and run again. {HOW_TO_RESTORE}"
            )
        return ImageFiles(paths, torch.tensor([int(path.stem) for path in paths]))

    def kaggle_test_batches(self, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Kaggle's test images, unaugmented float [B, 3, side, side], and their ids [B]."""
        source = self.kaggle_test_source()
        batches = torch.arange(len(source.targets)).split(self.eval_batch_size)
        for images, ids in self.stream(source, "test", batches, device):
            yield self._to_float(images, "test"), ids

    def _find(self, content: str) -> None:
        """Download and unpack what is in the competition's folder unless it is there."""
        zip_file, size = ZIP_FILES[content]

        def open_set(download: bool) -> None:
            if download:
                kaggle.download(COMPETITION, zip_file, self.folder)
            if not (self.folder / content).exists():
                raise FileNotFoundError(f"{self.folder / content} is missing")

        open_or_download(
            open_set,
            name=f"Galaxy Zoo {content}",
            size=size,
            folder=self.folder,
            advice=HOW_TO_RESTORE,
        )


class GalaxyOfflineDataModule(GalaxyDataModule):
    """5 % of the labelled images (3,079) are the test split, in place of Kaggle's."""

    SIZES = {"train": 58_499, "test": 3_079}

    def open_splits(self) -> dict[str, ImageFiles]:
        images = self._labelled()
        train, test = hold_out(images.targets, TEST_FRACTION)
        return {"train": images.take(train).on_disk(), "test": images.take(test).on_disk()}


def read_solutions(path: Path) -> tuple[Tensor, Tensor]:
    """Ids int64 [N] of the labelled galaxies, ascending, and shares of answers float32 [N, 37].

    Raises
    ------
    DataError
        If the file has other columns, or other values than shares.
    """
    try:
        table = pd.read_csv(path).sort_values(ID)
        shares = table[list(ANSWERS)].to_numpy(np.float32)
        ids = table[ID].to_numpy(np.int64)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} is damaged: {error!r}. {HOW_TO_RESTORE}") from error
    if not ((shares >= 0) & (shares <= 1)).all():  # NaN in what is missing of a line
        line = np.nonzero(~((shares >= 0) & (shares <= 1)).all(1))[0][0]
        raise DataError(
            f"{path} is damaged: galaxy {ids[line]} has not {len(ANSWERS)} values in [0, 1]. "
            f"{HOW_TO_RESTORE}"
        )
    return torch.tensor(ids), torch.tensor(shares)
