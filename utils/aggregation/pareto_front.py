"""Trade-offs between two costs: Pareto fronts, and measures that compare rate-distortion curves.

A curve D(r) is the lowest distortion (or other cost) at a rate of at most r. It is represented by
the points of its Pareto front: strictly increasing rates [N] and strictly decreasing distortions
[N]. D(r) is linear between these points, and constant after the last one.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import trapezoid
from scipy.interpolate import PchipInterpolator

Curve = tuple[np.ndarray, np.ndarray]  # rates, distortions


def pareto_front(x: ArrayLike, y: ArrayLike) -> np.ndarray:
    """Return the indices of the non-dominated points (x, y), [N] each, sorted by x.

    Both coordinates are costs: a point dominates another if it is smaller in one of them and not
    larger in the other. Of identical points, only the first is kept; points that are not finite are
    ignored. Along the front, x is strictly increasing and y strictly decreasing.
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
    """Integrate the rate over the distortion, using the trapezoidal rule on points [N].

    NaN if fewer than two points are finite.
    """
    points = np.asarray([distortions, rates], dtype=float)
    points = points[:, np.isfinite(points).all(0)]
    x, y = points[:, np.lexsort(points[::-1])]
    return float(trapezoid(y, x)) if len(x) > 1 else float("nan")


def gaussian_bits(mse: ArrayLike) -> np.ndarray:
    """Differential entropy of Gaussian errors, log2(2 pi e MSE) / 2, in bits."""
    with np.errstate(divide="ignore"):  # -inf if the MSE is 0
        return 0.5 * np.log2(2 * np.pi * np.e * np.asarray(mse, dtype=float))


def rate_at(curve: Curve, distortion: float) -> float:
    """The lowest rate at which D(r) is at most `distortion`.

    NaN outside the curve's range of distortions: a lower distortion is never reached, and for a
    higher one, a rate below that of the first point might suffice.
    """
    rates, distortions = curve
    if not distortions[-1] <= distortion <= distortions[0]:
        return float("nan")
    return float(np.interp(distortion, distortions[::-1], rates[::-1]))


def rate_gain(curve: Curve, baseline: Curve, tolerance: float = 0.01) -> float:
    """Rate of the baseline divided by that of the curve, at equal distortion.

    The distortion is the lowest one that both reach, plus the tolerance. NaN if either rate is
    unknown there (`rate_at`), or if the curve needs no bits.
    """
    level = max(curve[1][-1], baseline[1][-1]) + tolerance
    rate = rate_at(curve, level)
    return rate_at(baseline, level) / rate if rate > 0 else float("nan")


def bd_rate(curve: Curve, baseline: Curve) -> float:
    """Bjontegaard delta rate in percent: -50 means half the bits of the baseline, on average.

    The logarithm of the rate, as a function of the negative distortion, is interpolated by monotone
    piecewise cubics (PCHIP) and averaged over the distortions that both curves reach. NaN if there
    are none, or if a curve has fewer than two points; points with a rate of zero are ignored.

    Bjontegaard, "Calculation of average PSNR differences between RD-curves", VCEG-M33, 2001, but
    with PCHIP, as in JCTVC-L1100, instead of a single cubic polynomial, which requires four points.
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
