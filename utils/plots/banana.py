"""Figures of a two-dimensional source: quantisation cells, codebook, maximal invariant."""

import math

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from scipy.spatial import KDTree
from scipy.stats import gaussian_kde
from torch import Tensor

from lossyless.base import Batch
from lossyless.compressors import NATS_PER_BIT, LearnableCompressor
from lossyless.rates import EntropyCodedRate
from utils.data.banana import EQUIVALENCES, BananaDataModule
from utils.plots import style
from utils.plots.codebook import (
    CHUNK_SIZE,
    Codebook,
    cell_borders,
    find_codebook,
    window_grid,
)
from utils.plots.models import drawing, method_name, pick_examples

WINDOW = (-5.0, 5.0, -5.0, 5.0)  # left, right, bottom, top; as in the paper
AREA = 700  # area of a codebook point with probability 1, in square points
CLOUD = LinearSegmentedColormap.from_list("cloud", ["#ffffff", "#fbf1d3", "#f5dc96", "#ebc24e"])
# Borders fade between these densities of the encoder's inputs, relative to the median density:
# cells mean little where the encoder has seen no training data.
DARK, FAINT = 4e-2, 2e-5
N_NEIGHBOURS = 10  # used to estimate that density
BORDER = LinearSegmentedColormap.from_list("border", ["#e9ebee", style.LINE])
PIECE = 8  # number of consecutive border segments drawn in the same shade
N_SMOOTHED = 20_000  # points for density estimates
INVARIANTS = {"rotation": "|x|", "x_translation": "$x_2$", "y_translation": "$x_1$"}


# --- quantization.png


def codebook_plot(
    compressor: LearnableCompressor,
    data: BananaDataModule,
    *,
    n_pts: int = 100_000,
    n_grid: int = 500,
    window: tuple[float, float, float, float] = WINDOW,
) -> Figure:
    """Draw the density of the source, the borders of the quantisation cells, and the codebook.

    Codebook points are the reconstructions of the codes, with areas proportional to the codes'
    probabilities; without a decoder, no points are drawn. Borders fade with distance from the
    encoder's inputs. Raises ValueError if the source is not two-dimensional or the rate does not
    quantise.
    """
    check_codebook(compressor, data)
    with drawing(compressor):
        batch = pick_examples(compressor, data, compressor.distortion.needs, n_pts)
        grid = window_grid(window, n_grid).to(batch.x.device)
        codebook = find_codebook(compressor, torch.cat([batch.x, grid]))
        probabilities = codebook.probabilities(len(batch.x))
        labels = codebook.labels[len(batch.x) :].reshape(n_grid, n_grid).cpu().numpy()

        figure, axes = style.make_figure(5.0, 5.0)
        density = data.distribution.log_prob(grid).exp().reshape(n_grid, n_grid).cpu().numpy()
        norm = PowerNorm(0.6, vmin=0, vmax=density.max())  # makes the arms visible
        look = {"origin": "lower", "cmap": CLOUD, "norm": norm, "interpolation": "bilinear"}
        axes.imshow(density, extent=window, **look)
        is_contrastive = compressor.distortion.needs == "positive"  # it encodes both x and aux
        inputs = torch.cat([batch.x, batch.aux]) if is_contrastive else batch.x
        _draw_borders(axes, cell_borders(labels, window), inputs.cpu().numpy())
        if compressor.distortion.has_decoder:
            axes.scatter(
                *compressor.distortion.reconstruct(codebook.z_hat).T.cpu().numpy(),
                s=AREA * probabilities.cpu().numpy(),
                color=style.METHOD_COLOURS[method_name(compressor.distortion)],
                edgecolors="white",
                linewidths=0.5,
                zorder=3,
            )
        title = _title(compressor, codebook, batch)
    axes.set(xlim=window[:2], ylim=window[2:], aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(7, integer=True))
    style.polish(axes, title=title, xlabel="$x_1$", ylabel="$x_2$")
    return figure


def _draw_borders(axes: Axes, borders: list[np.ndarray], inputs: np.ndarray) -> None:
    """Draw borders: dark where the inputs [n, 2] of the encoder lie, faint elsewhere."""
    pieces = [
        line[start : start + PIECE + 1]
        for line in borders
        for start in range(0, len(line) - 1, PIECE)
    ]
    if not pieces:
        return  # a single cell
    nearest = KDTree(inputs)

    def log_density(points: np.ndarray) -> np.ndarray:  # up to a constant
        distances, _ = nearest.query(points, [min(N_NEIGHBOURS, len(inputs))])
        return -2 * np.log(distances[:, 0] + 1e-9)

    middles = np.stack([piece[len(piece) // 2] for piece in pieces])
    relative = log_density(middles) - np.median(log_density(inputs[:N_SMOOTHED]))
    low, high = math.log(FAINT), math.log(DARK)
    darkness = ((relative - low) / (high - low)).clip(0, 1)
    order = np.argsort(darkness)  # dark borders on top
    axes.add_collection(
        LineCollection(
            [pieces[i] for i in order],
            colors=BORDER(darkness[order]),
            linewidths=0.9,
            capstyle="round",
        )
    )


def _title(compressor: LearnableCompressor, codebook: Codebook, batch: Batch) -> str:
    """Title with the method, the rate and, given a decoder, the distortion, in bits as logged."""
    n_points = len(batch.x)
    rate = codebook.rates[:n_points].mean().item() / NATS_PER_BIT
    title = f"{method_name(compressor.distortion)}: {rate:.2f} bits"
    if not compressor.distortion.has_decoder:
        return title  # InfoNCE depends on the batch size
    z_hat = codebook.z_hat[codebook.labels[:n_points]]
    chunks = zip(z_hat.split(CHUNK_SIZE), batch.aux.split(CHUNK_SIZE), strict=True)
    distortion = torch.cat([compressor.distortion(*chunk)[0] for chunk in chunks]).mean().item()
    return f"{title}, distortion {distortion / NATS_PER_BIT:.3f}"


# --- max. inv. {equivalence}.png


def maxinv_distribution_plot(
    compressor: LearnableCompressor,
    data: BananaDataModule,
    *,
    n_pts: int = 100_000,
    n_bins: int = 50,
) -> Figure:
    """Draw the distributions of the maximal invariant M for the source and for the codebook.

    M of a code is M of its reconstruction or, without a decoder, the mean of M(X) over its cell.

    Raises ValueError if the source is not two-dimensional, M(X) is not scalar, or the rate does not
    quantise.
    """
    check_invariant(compressor, data)
    name = equivalence_name(data)
    with drawing(compressor):
        batch = pick_examples(compressor, data, compressor.distortion.needs, n_pts)
        codebook = find_codebook(compressor, batch.x)
        source = data.equivalence.maximal_invariant(batch.x)[:, 0]
        codes = codebook_invariants(compressor, data, codebook, source).cpu().numpy()
        weights = codebook.probabilities().cpu().numpy()
    method = method_name(compressor.distortion)
    figure = _draw_invariants(source.cpu().numpy(), codes, weights, n_bins, method)
    title = f"Maximal invariant ({name.replace('_', '-')})"
    label = f"M(x) = {INVARIANTS[name]}"
    style.polish(figure.axes[0], title=title, xlabel=label, ylabel="density of the source")
    return figure


def codebook_invariants(
    compressor: LearnableCompressor, data: BananaDataModule, codebook: Codebook, source: Tensor
) -> Tensor:
    """M of each code, [n_codes]; `source` is M of each point, in the order of the labels."""
    if compressor.distortion.has_decoder:
        points = compressor.distortion.reconstruct(codebook.z_hat)
        return data.equivalence.maximal_invariant(points)[:, 0]
    sums = torch.zeros(len(codebook.z_hat), dtype=source.dtype, device=source.device)
    sums = sums.index_add(0, codebook.labels, source)
    return sums / torch.bincount(codebook.labels, minlength=len(codebook.z_hat))


def equivalence_name(data: BananaDataModule) -> str | None:
    """The key of the data's equivalence in `EQUIVALENCES`."""
    (name,) = (name for name, relation in EQUIVALENCES.items() if relation is data.equivalence)
    return name


def _draw_invariants(
    source: np.ndarray, codes: np.ndarray, weights: np.ndarray, n_bins: int, method: str
) -> Figure:
    """Draw the density on the left axis and the probabilities on the right axis."""
    low, high = np.quantile(source, [0.0005, 0.9995])
    positions = np.linspace(low, high, 400)
    density = gaussian_kde(source[:N_SMOOTHED], bw_method=0.15)(positions)
    figure, axes = style.make_figure(5.0, 3.4)
    axes.fill_between(positions, density, color=CLOUD(0.6), linewidth=0)
    axes.plot(positions, density, color=CLOUD(1.0), linewidth=1.5)
    axes.set(xlim=(low, high), ylim=(0, None))

    bars = axes.twinx()
    colour = style.METHOD_COLOURS[method]
    edges = np.linspace(low, high, n_bins + 1)
    clipped = np.clip(codes.astype(float), low, high)
    bars.hist(clipped, edges, weights=weights, color=colour, rwidth=0.8)
    style.polish(bars, ylabel=f"probability of {method}'s codes")
    bars.spines["right"].set_visible(True)
    handles = [
        Patch(color=CLOUD(0.6), label="source"),
        Patch(color=colour, label=f"{method} codebook"),
    ]
    style.add_legend(axes, handles, loc="upper right")
    return figure


def check_codebook(compressor: LearnableCompressor, data: BananaDataModule) -> None:
    """Raise `ValueError` unless the source is two-dimensional and the rate quantises."""
    if not isinstance(data, BananaDataModule):
        raise ValueError(
            "cells and codebook need a two-dimensional source (data=banana*), found "
            f"{type(data).__name__}"
        )
    if not isinstance(compressor.rate, EntropyCodedRate):
        raise ValueError(
            f"{type(compressor.rate).__name__} does not quantise, so there is no codebook: use "
            "rate=H_factorized or H_hyper, or remove the figure from figures.names"
        )


def check_invariant(compressor: LearnableCompressor, data: BananaDataModule) -> None:
    """Raise `ValueError` if `check_codebook` does, or if M(X) is not scalar."""
    check_codebook(compressor, data)
    if data.n_outputs != 1:
        raise ValueError(
            "maxinv_distribution_plot needs a scalar maximal invariant, but that of "
            f"equivalence={equivalence_name(data)} has {data.n_outputs} dimensions: use "
            "equivalence=rotation, x_translation or y_translation, or remove the figure from "
            "figures.names"
        )
