"""What several compressors make of the same images (figure 1 of the paper)."""

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure

from lossyless.compressors import LearnableCompressor
from utils.data.module import DataModule
from utils.plots.images import augmented_images, reconstruct, reconstruction_grid
from utils.plots.mosaic import mosaic


def single_row_plot(
    compressors: Mapping[str, LearnableCompressor], data: DataModule, *, index: int = 0
) -> Figure:
    """One test image as the sender sees it, then what each compressor rebuilds of it.

    Parameters
    ----------
    compressors : title of the image -> compressor that makes it; one at least.
    data : the test images, augmented as `data` is.
    index : which test image.

    Raises
    ------
    ValueError
        If there is no such image, or a compressor has no decoder.
    """
    x = augmented_images(_first(compressors), data, index + 1).x
    if not 0 <= index < len(x):
        raise ValueError(f"there is no test image {index}: {data.n_examples('test')} images")
    x = x[index:]
    images = [x, *(reconstruct(compressor, x) for compressor in compressors.values())]
    return mosaic(torch.stack(images, 1), column_labels=["augmented", *compressors])


def multi_row_plot(
    compressors: Mapping[str, LearnableCompressor], data: DataModule, *, n_images: int = 10
) -> Figure:
    """Test images in columns: unaugmented, as the sender sees them, rebuilt by each compressor.

    Parameters
    ----------
    compressors : label of the row -> compressor that makes it; one at least.

    Raises `ValueError` if a compressor has no decoder.
    """
    batch = augmented_images(_first(compressors), data, n_images)
    decoded = {label: reconstruct(c, batch.x) for label, c in compressors.items()}
    return reconstruction_grid({"source": batch.aux, "augmented": batch.x} | decoded)


def _first(compressors: Mapping[str, LearnableCompressor]) -> LearnableCompressor:
    return next(iter(compressors.values()))
