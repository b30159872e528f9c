"""What a compressor keeps of images: reconstructions, and what its latents stand for."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath
from torch import Tensor

from lossyless.compressors import LearnableCompressor
from utils.data.base import DataModule
from utils.plots import style

WIDTH = 5.0  # of a figure, inches
GAP = 0.08  # between images, of their side
MARGIN, LINE_HEIGHT = 0.06, 0.28  # inches
POINTS_PER_INCH = 72
N_STEPS = 7
LOW, HIGH = 0.01, 0.99  # quantiles between which a latent moves


# --- rec_imgs.png


def reconstruct_image_plot(
    compressor: LearnableCompressor, data: DataModule, *, n_images: int = 10
) -> Figure:
    """Test images, the augmented ones that the sender sees, and what the receiver rebuilds.

    Raises
    ------
    ValueError
        If the compressor has no decoder, or the data have no unaugmented representatives.
    """
    _check(compressor)
    with style.drawing(compressor):
        batch = style.first_examples(compressor, data, "representative", n_images)
        if batch.aux is None:
            raise ValueError(
                f"{type(data).__name__} gives no unaugmented representatives: its batches have no "
                "`aux`. Draw the figure with the data set that the compressor was trained on"
            )
        method = style.method_name(compressor.distortion)
        rows = {
            "source": batch.aux,
            "augmented": batch.x,
            f"{method} decoded": reconstruct(compressor, batch.x),
        }
    return reconstruction_grid(rows)


def reconstruct(compressor: LearnableCompressor, x: Tensor) -> Tensor:
    """What the receiver rebuilds of images x [N, C, H, W] in [0, 1]; same shape and range."""
    return compressor.distortion.reconstruct(_quantise(compressor, x))


def reconstruction_grid(rows: dict[str, Tensor]) -> Figure:
    """One row of images [N, C, H, W] in [0, 1] under each other, with the keys as labels.

    Columns are to be compared, e.g. what several compressors make of the same images.

    Raises
    ------
    ValueError
        If there are no rows, or their shapes differ.
    """
    shapes = {label: tuple(images.shape) for label, images in rows.items()}
    if len(set(shapes.values())) != 1 or any(len(shape) != 4 for shape in shapes.values()):
        raise ValueError(f"rows of one common shape [N, C, H, W] are needed, found {shapes}")
    return _mosaic(torch.stack(list(rows.values())), row_labels=list(rows))


# --- traversals_1d.png and traversals_2d.png


def latent_traversals_plot_1d(
    compressor: LearnableCompressor, data: DataModule, *, n_latents: int = 5, n_pts: int = 1000
) -> Figure:
    """What is rebuilt when one latent moves and the others stay as the first test image has them.

    One row for each of the `n_latents` of the largest variance over `n_pts` test images, the
    largest on top. A latent moves in equal steps from the 1st to the 99th percentile of its
    z_hat, so that it stays where the decoder knows it.

    Raises
    ------
    ValueError
        If the compressor has no decoder.
    """
    _check(compressor)
    with style.drawing(compressor):
        z_hat = _test_codes(compressor, data, n_pts)
        latents = most_varying(z_hat, n_latents)
        z = torch.stack([_moved(z_hat, latent) for latent in latents])
        images = compressor.distortion.reconstruct(z.flatten(0, 1)).unflatten(0, z.shape[:2])
    return _mosaic(
        images,
        row_labels=[f"latent {latent}" for latent in latents],
        xlabel="value of the latent, 1st to 99th percentile  →",
    )


def latent_traversals_plot_2d(
    compressor: LearnableCompressor, data: DataModule, *, n_pts: int = 1000
) -> Figure:
    """What is rebuilt when the two latents of the largest variance move together.

    The first one moves to the right, the second one upwards; steps and other latents are those of
    `latent_traversals_plot_1d`.

    Raises
    ------
    ValueError
        If the compressor has no decoder, or less than 2 latents.
    """
    _check(compressor)
    with style.drawing(compressor):
        z_hat = _test_codes(compressor, data, n_pts)
        if z_hat.shape[1] < 2:
            raise ValueError("latent_traversals_plot_2d needs z_dim >= 2, found z_dim=1")
        first, second = most_varying(z_hat, 2)
        z = _moved(z_hat, first).repeat(N_STEPS, 1, 1)
        z[..., second] = latent_steps(z_hat, second).flip(0)[:, None]
        images = compressor.distortion.reconstruct(z.flatten(0, 1)).unflatten(0, z.shape[:2])
    return _mosaic(
        images, [""] * N_STEPS, xlabel=f"latent {first}  →", ylabel=f"latent {second}  →"
    )


def most_varying(z_hat: Tensor, n_latents: int) -> list[int]:
    """The latents of the largest variance over z_hat [N, z_dim], the largest first."""
    return z_hat.var(0).argsort(descending=True, stable=True)[:n_latents].tolist()


def latent_steps(z_hat: Tensor, latent: int) -> Tensor:
    """Values [N_STEPS] that a latent takes, evenly between two of its quantiles."""
    low, high = z_hat[:, latent].quantile(torch.tensor([LOW, HIGH], device=z_hat.device)).tolist()
    return torch.linspace(low, high, N_STEPS, device=z_hat.device)


def _moved(z_hat: Tensor, latent: int) -> Tensor:
    """The first example's z_hat with all steps of one latent, [N_STEPS, z_dim]."""
    moved = z_hat[0].repeat(N_STEPS, 1)
    moved[:, latent] = latent_steps(z_hat, latent)
    return moved


def _test_codes(compressor: LearnableCompressor, data: DataModule, n: int) -> Tensor:
    x = style.first_examples(compressor, data, "none", n).x
    return torch.cat([_quantise(compressor, chunk) for chunk in x.split(data.eval_batch_size)])


def _quantise(compressor: LearnableCompressor, x: Tensor) -> Tensor:
    p_ZlX = compressor.p_ZlX(x)
    z_hat, _, _ = compressor.rate(p_ZlX.mean, p_ZlX)
    return z_hat


# --- drawing


def _mosaic(
    images: Tensor, row_labels: Sequence[str], xlabel: str = "", ylabel: str = ""
) -> Figure:
    """Images [n_rows, n_columns, C, H, W] in [0, 1] on white ground, rows labelled at the left."""
    n_rows, n_columns, _, height, width = images.shape
    gap = max(1, round(GAP * width))
    canvas = np.ones((n_rows * (height + gap) - gap, n_columns * (width + gap) - gap, 3))
    pixels = images.float().clamp(0, 1).cpu().permute(0, 1, 3, 4, 2).numpy()  # grey is broadcast
    for row in range(n_rows):
        for column in range(n_columns):
            top, left = row * (height + gap), column * (width + gap)
            canvas[top : top + height, left : left + width] = pixels[row, column]
    figure, axes = style.make_figure()
    figure.set_layout_engine("none")  # to the inch, below: images fill what the labels leave
    axes.imshow(canvas, interpolation="nearest")
    style.polish(axes, xlabel=xlabel, ylabel=ylabel)
    axes.set_xticks([])
    axes.set_yticks(np.arange(n_rows) * (height + gap) + (height - 1) / 2, labels=row_labels)
    axes.tick_params(length=0, labelsize=style.LABEL_SIZE)
    axes.spines[:].set_visible(False)

    left = max(map(_text_width, row_labels)) + (LINE_HEIGHT if ylabel else 0) + MARGIN
    bottom = LINE_HEIGHT if xlabel else 0
    inner_width = WIDTH - left - MARGIN
    inner_height = inner_width * len(canvas) / canvas.shape[1]
    total = inner_height + bottom + 2 * MARGIN
    figure.set_size_inches(WIDTH, total)
    axes.set_position(
        (left / WIDTH, (bottom + MARGIN) / total, inner_width / WIDTH, inner_height / total)
    )
    return figure


def _text_width(label: str) -> float:
    """Inches, with the gap between a label and what it labels."""
    if not label:
        return 0.0
    path = TextPath((0, 0), label, size=style.LABEL_SIZE)
    return path.get_extents().x1 / POINTS_PER_INCH + MARGIN


def _check(compressor: LearnableCompressor) -> None:
    if not compressor.distortion.has_decoder:
        raise ValueError(
            f"{type(compressor.distortion).__name__} has no decoder, so there are no images to "
            "draw: use distortion=VAE or VIC, or leave the figure out"
        )
