"""Trade-offs between two costs: which points are optimal, and what a curve of them is worth."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import trapezoid


def pareto_front(x: ArrayLike, y: ArrayLike) -> np.ndarray:
    """Indices of the points (x, y), [N] each, that no other point beats; in the order of x.

    Both are costs: a point is beaten by one that is smaller in one of them and not larger in the
    other. Of equal points the first is taken; points with a NaN are left out. Along the front x
    grows and y falls, strictly.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    order = np.lexsort((y, x))
    order = order[np.isfinite(x[order]) & np.isfinite(y[order])]
    lowest_before = np.minimum.accumulate(np.concatenate([[np.inf], y[order]]))[:-1]
    return order[y[order] < lowest_before]


def area_under_front(rates: np.ndarray, distortions: np.ndarray, start: float, end: float) -> float:
    """Integral of the distortion D(r) over rates r from `start` to `end`.

    D(r) is linear between the points of a Pareto front (in its order), and constant behind the
    last one: whoever may spend more bits need not.

    Raises
    ------
    ValueError
        If `start` lies before the first point, where D is unknown, or behind `end`.
    """
    if not rates[0] <= start <= end:
        raise ValueError(f"expected {rates[0]} <= start <= end, found {start} and {end}")
    between = rates[(start < rates) & (rates < end)]
    nodes = np.concatenate([[start], between, [end]])
    return float(trapezoid(np.interp(nodes, rates, distortions), nodes))


def rate_at_lowest_distortion(
    rates: np.ndarray, distortions: np.ndarray, tolerance: float = 0.01
) -> float:
    """The lowest rate at which D(r), as above, is at most `tolerance` above its minimum.

    I.e. D(r) <= D_min + tolerance * |D_min|. What a compressor needs to lose (almost) nothing.
    """
    lowest = distortions[-1]
    return float(np.interp(lowest + tolerance * abs(lowest), distortions[::-1], rates[::-1]))
