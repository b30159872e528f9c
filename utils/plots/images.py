"""Figures of reconstructed images and latent traversals."""

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from lossyless.base import Batch
from lossyless.compressors import LearnableCompressor
from utils.data.module import DataModule
from utils.plots.models import drawing, method_name, pick_examples
from utils.plots.mosaic import mosaic

N_STEPS = 7
LOW, HIGH = 0.01, 0.99  # quantiles at the ends of a traversal


# --- rec_imgs.png


def reconstruct_image_plot(
    compressor: LearnableCompressor,
    data: DataModule,
    *,
    n_samples: int = 7,
    n_rows: int = 1,
    seed: int | None = 123,
    is_train: bool = False,
    is_plot_real: bool = True,
    labels: Sequence[str] | None = None,
) -> Figure:
    """Draw source images, the sender's augmented images, and the receiver's reconstructions.

    Raises ValueError if the data have no unaugmented representatives, the images do not fill the
    rows, or the number of labels is wrong.
    """
    split = "train" if is_train else "test"
    batch = augmented_images(compressor, data, n_samples, split=split, seed=seed)
    decoded = reconstruct(compressor, batch.x)
    kinds = {f"{method_name(compressor.distortion)} decoded": decoded}
    if is_plot_real:
        kinds = {"source": batch.aux, "augmented": batch.x} | kinds
    labels = list(kinds) if labels is None else list(labels)
    if len(labels) != len(kinds):
        raise ValueError(f"labels={labels}: expected {len(kinds)}, for {', '.join(kinds)}")
    if n_rows < 1 or len(decoded) % n_rows:
        raise ValueError(f"{len(decoded)} images do not fill n_rows={n_rows}: change n_samples")
    rows = torch.stack([images.unflatten(0, (n_rows, -1)) for images in kinds.values()], dim=1)
    return mosaic(rows.flatten(0, 1), row_labels=labels * n_rows)


def augmented_images(
    compressor: LearnableCompressor,
    data: DataModule,
    n: int,
    *,
    split: str = "test",
    seed: int | None = None,
) -> Batch:
    """Pick at most n images, which are augmented in `x` [n, C, H, W] and unaugmented in `aux`.

    `seed` is the seed for sampling the images; None takes the first images. Raises `ValueError` if
    the data have no unaugmented representatives.
    """
    batch = pick_examples(compressor, data, "representative", n, split=split, seed=seed)
    if batch.aux is None:
        raise ValueError(
            f"{type(data).__name__} has no unaugmented representatives (`aux`): draw the figure "
            "with the data set that the compressor was trained on"
        )
    return batch


def reconstruct(compressor: LearnableCompressor, x: Tensor) -> Tensor:
    """Reconstruct images x [N, C, H, W] in [0, 1]; shape and range stay the same."""
    with drawing(compressor):
        return compressor.distortion.reconstruct(_quantise(compressor, x))


def check_images(compressor: LearnableCompressor, data: DataModule) -> None:
    """Raise `ValueError` unless the data are images and the compressor has a decoder."""
    if data.kind == "vector":
        raise ValueError(f"{type(data).__name__} holds vectors, not images")
    if not compressor.distortion.has_decoder:
        raise ValueError(
            f"{type(compressor.distortion).__name__} has no decoder to reconstruct images: use "
            "distortion=VAE or VIC, or remove the figure from figures.names"
        )


# --- traversals_1d.png and traversals_2d.png


def latent_traversals_plot_1d(
    compressor: LearnableCompressor, data: DataModule, *, n_latents: int = 5, n_pts: int = 1000
) -> Figure:
    """Draw traversals of single latents of the first test image, with all other latents fixed.

    There is one row for each of the `n_latents` latents with the largest variance over `n_pts` test
    images, in descending order. Each latent varies in equal steps from the 1st to the 99th
    percentile of z_hat, so the decoder sees values in the range that it was trained on.
    """
    with drawing(compressor):
        z_hat = _test_codes(compressor, data, n_pts)
        latents = most_varying(z_hat, n_latents)
        z = torch.stack([_moved(z_hat, latent) for latent in latents])
        images = compressor.distortion.reconstruct(z.flatten(0, 1)).unflatten(0, z.shape[:2])
    return mosaic(
        images,
        row_labels=[f"latent {latent}" for latent in latents],
        xlabel="value of the latent, 1st to 99th percentile  →",
    )


def latent_traversals_plot_2d(
    compressor: LearnableCompressor, data: DataModule, *, n_pts: int = 1000
) -> Figure:
    """Draw a traversal of the two latents with the largest variance: one rightwards, one upwards.

    The steps and the other latents are as in `latent_traversals_plot_1d`. Raises `ValueError` if
    there are fewer than two latents.
    """
    with drawing(compressor):
        z_hat = _test_codes(compressor, data, n_pts)
        if z_hat.shape[1] < 2:
            raise ValueError("latent_traversals_plot_2d needs z_dim >= 2, found z_dim=1")
        first, second = most_varying(z_hat, 2)
        z = _moved(z_hat, first).repeat(N_STEPS, 1, 1)
        z[..., second] = latent_steps(z_hat, second).flip(0)[:, None]
        images = compressor.distortion.reconstruct(z.flatten(0, 1)).unflatten(0, z.shape[:2])
    return mosaic(images, xlabel=f"latent {first}  →", ylabel=f"latent {second}  →")


def most_varying(z_hat: Tensor, n_latents: int) -> list[int]:
    """Indices of the latents with the largest variance over z_hat [N, z_dim], largest first."""
    return z_hat.var(0).argsort(descending=True, stable=True)[:n_latents].tolist()


def latent_steps(z_hat: Tensor, latent: int) -> Tensor:
    """Equally spaced values [N_STEPS] between the `LOW` and `HIGH` quantiles of a latent."""
    low, high = z_hat[:, latent].quantile(torch.tensor([LOW, HIGH], device=z_hat.device)).tolist()
    return torch.linspace(low, high, N_STEPS, device=z_hat.device)


def _moved(z_hat: Tensor, latent: int) -> Tensor:
    """z_hat of the first example with one latent set to each of its steps: [N_STEPS, z_dim]."""
    moved = z_hat[0].repeat(N_STEPS, 1)
    moved[:, latent] = latent_steps(z_hat, latent)
    return moved


def _test_codes(compressor: LearnableCompressor, data: DataModule, n: int) -> Tensor:
    x = pick_examples(compressor, data, "none", n).x
    return torch.cat([_quantise(compressor, chunk) for chunk in x.split(data.eval_batch_size)])


def _quantise(compressor: LearnableCompressor, x: Tensor) -> Tensor:
    p_ZlX = compressor.p_ZlX(x)
    z_hat, _, _ = compressor.rate(p_ZlX.mean, p_ZlX)
    return z_hat
