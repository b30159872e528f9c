"""A small, generated Galaxy Zoo in the layout of Kaggle's files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from utils.data.sources.galaxy import ANSWERS, ID

N_LABELLED = 40
SIZES = {"train": N_LABELLED}  # before the validation split is held out
IDS = 100008 + 23 * np.random.default_rng(0).permutation(N_LABELLED)


def pixels(galaxy: int) -> np.ndarray:
    """A bright 4-pixel square in the centre of a dark sky; green identifies the galaxy."""
    image = np.zeros((424, 424, 3), np.uint8)
    image[:64] = 255  # outside of the centre of 256 pixels, by some blocks of the JPEG
    image[210:214, 210:214, 0] = 255
    image[..., 1] = galaxy % 251
    return image


def solutions() -> pd.DataFrame:
    """The table of the labelled galaxies, with random fractions of answers."""
    shares = np.random.default_rng(1).random((N_LABELLED, len(ANSWERS))).round(6)
    shares[0, :2] = 0, 1
    table = pd.DataFrame(shares, columns=ANSWERS)
    table.insert(0, ID, IDS)
    return table


def save(data_dir: Path, kaggle_ids: Sequence[int]) -> None:
    """Write the competition's files to a data folder; `kaggle_ids` are those of its test images."""
    folder = data_dir / "galaxyzoo"
    for name, ids in (("images_training_rev1", IDS), ("images_test_rev1", kaggle_ids)):
        (folder / name).mkdir(parents=True)
        for galaxy in ids:
            Image.fromarray(pixels(galaxy)).save(folder / name / f"{galaxy}.jpg", quality=95)
    solutions().to_csv(folder / "training_solutions_rev1.csv", index=False)
