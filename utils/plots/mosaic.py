"""A grid of images on a white background, with labels around it."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath
from torch import Tensor
from torch.nn import functional as F

from utils.plots import style

MIN_WIDTH, MAX_WIDTH = 5.0, 10.0  # figure widths, in inches
GAP = 0.08  # between images, as a fraction of their width
MARGIN, LINE_HEIGHT = 0.06, 0.28  # in inches
POINTS_PER_INCH = 72


def mosaic(
    images: Tensor,
    *,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    xlabel: str = "",
    ylabel: str = "",
) -> Figure:
    """Draw images in rows and columns.

    `images` is [n_rows, n_columns, C, H, W] in [0, 1]; C is 1 (grey) or 3. Images keep their
    resolution, or are enlarged to make room for column labels. If the figure would be narrower than
    `MIN_WIDTH` or wider than `MAX_WIDTH` inches, it is scaled to that width. Labels of rows (on the
    left) and columns (above) may span several lines.
    """
    n_rows, n_columns, _, height, width = images.shape
    canvas, gap = _canvas(images)
    left = max(map(_text_width, row_labels), default=0.0) + (LINE_HEIGHT if ylabel else 0) + MARGIN
    bottom = MARGIN + (LINE_HEIGHT if xlabel else 0)
    n_lines = max((label.count("\n") + 1 for label in column_labels), default=0)
    top = MARGIN + n_lines * LINE_HEIGHT

    columns_width = n_columns * (max(map(_text_width, column_labels), default=0.0) + MARGIN)
    native_width = canvas.shape[1] / style.DPI
    total_width = left + max(native_width, columns_width) + MARGIN
    total_width = min(max(total_width, MIN_WIDTH), MAX_WIDTH)
    inner_width = total_width - left - MARGIN
    inner_height = inner_width * len(canvas) / canvas.shape[1]
    total_height = bottom + inner_height + top

    figure, axes = style.make_figure(total_width, total_height)
    figure.set_layout_engine("none")  # images fill the space beside the labels
    axes.set_position(
        (
            left / total_width,
            bottom / total_height,
            inner_width / total_width,
            inner_height / total_height,
        )
    )
    is_shrunk = inner_width < native_width
    axes.imshow(canvas, interpolation="antialiased" if is_shrunk else "nearest")
    style.polish(axes, xlabel=xlabel, ylabel=ylabel)
    rows, columns = np.arange(n_rows) * (height + gap), np.arange(n_columns) * (width + gap)
    axes.set_yticks(rows[: len(row_labels)] + (height - 1) / 2, labels=row_labels)
    axes.set_xticks(columns[: len(column_labels)] + (width - 1) / 2, labels=column_labels)
    axes.tick_params(length=0, labelsize=style.LABEL_SIZE, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    return figure


def _canvas(images: Tensor) -> tuple[np.ndarray, int]:
    """The grid as an array [height, width, 3], and the gap between images, in pixels."""
    gap = max(1, round(GAP * images.shape[-1]))
    padded = F.pad(images.float().clamp(0, 1).cpu(), (0, gap, 0, gap), value=1.0)
    canvas = padded.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)[:-gap, :-gap]
    return canvas.expand(-1, -1, 3).numpy(), gap


def _text_width(label: str) -> float:
    """Width of the longest line plus the gap to the image, in inches."""
    if not label:
        return 0.0
    paths = [TextPath((0, 0), line, size=style.LABEL_SIZE) for line in label.split("\n")]
    return max(path.get_extents().x1 for path in paths) / POINTS_PER_INCH + MARGIN
