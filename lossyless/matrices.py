"""Validation of estimators' parameters and input matrices."""

from numbers import Real

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

# Bounds on values and cell widths: the range of float32, less a margin for sums and inverse widths.
SMALLEST, LARGEST = 1e-30, 1e30
TOO_FAR = f"outside [{SMALLEST:g}, {LARGEST:g}]: choose another unit"
# Constant columns may appear to vary by this much, relative to their mean, due to rounding.
RESOLUTION = {np.dtype(np.float32): 2.0**-26, np.dtype(np.float64): 2.0**-48}


def check_positive(estimator: BaseEstimator, name: str) -> None:
    """Raise ValueError if a parameter is not a positive number."""
    value = getattr(estimator, name)
    if isinstance(value, bool) or not (isinstance(value, Real) and 0 < value < np.inf):
        raise ValueError(f"{name}={value!r}: expected a positive number")


def mean_and_scale(Z: NDArray) -> tuple[NDArray[np.float64], float]:
    """Compute the mean [D] and `scale_` of rows Z [N, D].

    Raises ValueError if values exceed `LARGEST`, or if the scale is below `SMALLEST`.
    """
    largest = max(float(Z.max()), -float(Z.min()))
    if largest > LARGEST:
        raise ValueError(f"Z has values of magnitude {largest:g}, {TOO_FAR}")
    mean, variances = Z.mean(0, dtype=np.float64), Z.var(0, dtype=np.float64)
    is_constant = np.sqrt(variances) <= RESOLUTION[Z.dtype] * np.abs(mean)
    variances[is_constant | (Z.min(0) == Z.max(0))] = 0.0
    scale = float(np.sqrt(variances.mean())) or largest or 1.0
    if scale < SMALLEST:
        raise ValueError(f"the columns of Z vary by {scale:g}, {TOO_FAR}")
    return mean, scale


def validated(estimator: BaseEstimator, Z: ArrayLike, *, reset: bool = True) -> NDArray:
    """Return rows Z [N, D], as float32 if it can represent all values of their dtype, else float64.

    Raises ValueError for NaN, infinite values, wrong shapes, or columns that differ from `fit`'s.
    """
    if isinstance(Z, (bytes, bytearray, memoryview)):
        raise TypeError("expected a matrix of rows, found bytes")
    dtype = getattr(Z, "dtype", None)
    is_small = isinstance(dtype, np.dtype) and np.can_cast(dtype, np.float32)
    types = (np.float32, np.float64) if is_small else (np.float64, np.float32)
    try:
        return validate_data(estimator, Z, dtype=types, order="C", reset=reset)
    except ValueError as error:  # drop scikit-learn's advice about its own estimators
        raise ValueError(
            str(error).partition(f"\n{type(estimator).__name__} does not")[0]
        ) from error
