"""The codes of points in the plane, and the borders between their cells."""

from dataclasses import dataclass

import numpy as np
import torch
from contourpy import contour_generator
from scipy.ndimage import find_objects, gaussian_filter
from torch import Tensor

from lossyless.compressors import LearnableCompressor

CHUNK_SIZE = 16_384  # points per forward pass
SMOOTHING, MARGIN = 1.5, 6  # for drawing borders, in grid pixels


@dataclass(frozen=True)
class Codebook:
    """The distinct codes of a set of points, and the code of each point."""

    z_hat: Tensor  # distinct codes [n_codes, z_dim]
    labels: Tensor  # index into `z_hat` of each point's code, [n_points]
    rates: Tensor  # rate of each point in nats, [n_points]

    def probabilities(self, n_points: int | None = None) -> Tensor:
        """Fractions [n_codes] of the points, or of the first `n_points`, that have each code."""
        labels = self.labels[:n_points]
        return torch.bincount(labels, minlength=len(self.z_hat)).double() / len(labels)


def find_codebook(compressor: LearnableCompressor, x: Tensor) -> Codebook:
    """Find the codes of points x [n_points, 2], as the receiver decodes them."""
    codes, rates = [], []
    for chunk in x.split(CHUNK_SIZE):
        p_ZlX = compressor.p_ZlX(chunk)
        z_hat, chunk_rates, _ = compressor.rate(p_ZlX.rsample(), p_ZlX)
        codes.append(z_hat)
        rates.append(chunk_rates)
    z_hat = torch.cat(codes)
    # one dimension at a time: sorting numbers is much faster than sorting rows
    labels = torch.zeros(len(z_hat), dtype=torch.int64, device=z_hat.device)
    for values in z_hat.unbind(1):
        values, index = torch.unique(values, return_inverse=True)
        labels = torch.unique(labels * len(values) + index, return_inverse=True)[1]
    codebook = z_hat.new_empty(int(labels.max()) + 1, z_hat.shape[1])
    codebook[labels] = z_hat
    return Codebook(codebook, labels, torch.cat(rates))


def window_grid(window: tuple[float, ...], n_grid: int) -> Tensor:
    """Centres [n_grid^2, 2] of the pixels of a window, row by row, starting at the bottom left."""
    left, right, bottom, top = window
    steps = (torch.arange(n_grid) + 0.5) / n_grid
    ys, xs = torch.meshgrid(
        bottom + (top - bottom) * steps, left + (right - left) * steps, indexing="ij"
    )
    return torch.stack([xs.flatten(), ys.flatten()], dim=1)


def cell_borders(labels: np.ndarray, window: tuple[float, ...]) -> list[np.ndarray]:
    """Smoothed outlines [n, 2] of the cells in a grid of labels [n_grid, n_grid].

    Edges of the window are not part of the outlines.
    """
    left, right, bottom, top = window
    scale = np.array([right - left, top - bottom]) / len(labels)
    labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape) + 1
    borders = []
    for label, box in enumerate(find_objects(labels), start=1):
        rows, columns = (slice(max(0, s.start - MARGIN), s.stop + MARGIN) for s in box)
        cell = (labels[rows, columns] == label).astype(float)
        smooth = gaussian_filter(cell, SMOOTHING, mode="nearest")
        for line in contour_generator(z=smooth).lines(0.5):
            pixels = line + [columns.start + 0.5, rows.start + 0.5]
            borders.append(pixels * scale + [left, bottom])
    return borders
