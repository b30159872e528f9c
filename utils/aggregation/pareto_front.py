"""Trade-offs between two costs: which points are optimal, and what a curve of them is worth.

A curve D(r), the lowest distortion (or another cost) at a rate of at most r, is given by the points
of its Pareto front, in the order of the rate: rates [N] rise and distortions [N] fall, strictly.
It is linear between them, and constant behind the last one: whoever may spend more bits need not.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import trapezoid
from scipy.interpolate import PchipInterpolator

Curve = tuple[np.ndarray, np.ndarray]  # rates, distortions


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


def front_of(rates: ArrayLike, distortions: ArrayLike) -> Curve:
    """The curve D(r) of the points (rate, distortion), [N] each."""
    members = pareto_front(rates, distortions)
    return np.asarray(rates, float)[members], np.asarray(distortions, float)[members]


def area_under_rates(distortions: ArrayLike, rates: ArrayLike) -> float:
    """Integral of the rate over the distortion, by trapezoids between points [N] in the order of
    the distortion; NaN with fewer than two that are finite."""
    points = np.asarray([distortions, rates], dtype=float)
    points = points[:, np.isfinite(points).all(0)]
    x, y = points[:, np.lexsort(points[::-1])]
    return float(trapezoid(y, x)) if len(x) > 1 else float("nan")


def gaussian_bits(mse: ArrayLike) -> np.ndarray:
    """Differential entropy of Gaussian errors, log2(2 pi e MSE) / 2, in bits."""
    with np.errstate(divide="ignore"):  # no error is an infinitely narrow distribution
        return 0.5 * np.log2(2 * np.pi * np.e * np.asarray(mse, dtype=float))


def rate_at(curve: Curve, distortion: float) -> float:
    """The lowest rate at which D(r) is at most `distortion`; NaN where that is unknown.

    That is where the curve never gets there, and where it is nowhere as bad: fewer bits than those
    of its first point may be enough, too.
    """
    rates, distortions = curve
    if not distortions[-1] <= distortion <= distortions[0]:
        return float("nan")
    return float(np.interp(distortion, distortions[::-1], rates[::-1]))


def rate_gain(curve: Curve, baseline: Curve, tolerance: float = 0.01) -> float:
    """How many times fewer bits a curve needs than the baseline, at equal distortion.

    That is the lowest distortion that both reach, plus the tolerance, in the same unit. NaN if one
    of them is nowhere as bad as that, so that nothing is known of the bits it needs for it, or if
    the curve needs none.
    """
    level = max(curve[1][-1], baseline[1][-1]) + tolerance
    rate = rate_at(curve, level)
    return rate_at(baseline, level) / rate if rate > 0 else float("nan")


def bd_rate(curve: Curve, baseline: Curve) -> float:
    """Bjontegaard delta rate in percent: -50 means half the bits of the baseline, on average.

    The logarithm of the rate is interpolated as a function of the quality, here the negative
    distortion in its own unit, by monotone piecewise cubics (PCHIP), and averaged over the interval
    of qualities that both curves reach. NaN if there is none, or if a curve has fewer than two
    points. Points of no bits, which have no logarithm, are left out.

    Bjontegaard, "Calculation of average PSNR differences between RD-curves", VCEG-M33, 2001; with
    the PCHIP of JCTVC-L1100 rather than one cubic polynomial, so that any number of points fits.
    """
    logarithms = [_log_rate_of_quality(*points) for points in (curve, baseline)]
    if None in logarithms:
        return float("nan")
    low = max(function.x[0] for function in logarithms)
    high = min(function.x[-1] for function in logarithms)
    if not low < high:
        return float("nan")
    ours, theirs = (function.integrate(low, high) for function in logarithms)
    return float(100 * np.expm1((ours - theirs) / (high - low)))


def _log_rate_of_quality(rates: np.ndarray, distortions: np.ndarray) -> PchipInterpolator | None:
    is_coded = rates > 0
    if is_coded.sum() < 2:
        return None
    return PchipInterpolator(-distortions[is_coded], np.log(rates[is_coded]))
