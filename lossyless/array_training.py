"""Checks the input of `ArrayCompressor`, and trains its bottleneck."""

import math
import sys
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data
from torch import Tensor
from torch.optim import lr_scheduler
from tqdm import tqdm

from lossyless.rates import HFactorized
from lossyless.rates.entropy_coded import MIN_SHIFT
from lossyless.rates.transforms import TRANSFORMS

# Training passes over small matrices more often, so that the entropy model converges for them, too.
MIN_STEPS = 300
MAX_GRAD_NORM = 100.0
DISTORTIONS = {"squared": torch.square, "l1": torch.abs}
SCHEDULES = {
    "cosine": lr_scheduler.CosineAnnealingLR,
    "step": lambda optimizer, n: lr_scheduler.StepLR(optimizer, math.ceil(n / 5), gamma=0.1),
}
# Bounds on values and cell widths: the range of float32, less a margin for sums and inverse widths.
SMALLEST, LARGEST = 1e-30, 1e30
TOO_FAR = f"outside [{SMALLEST:g}, {LARGEST:g}]: choose another unit"
# Constant columns appear to vary by this much, relative to their mean, due to rounding.
RESOLUTION = {np.dtype(np.float32): 2.0**-26, np.dtype(np.float64): 2.0**-48}


def check_parameters(parameters: Mapping[str, Any]) -> torch.device:
    """The device to train on. Raises ValueError for an invalid parameter."""
    for name in ("beta", "lr", "n_epochs", "batch_size"):
        value = parameters[name]
        if not (isinstance(value, Real) and 0 < value < math.inf):
            raise ValueError(f"{name}={value!r}: expected a positive number")
    if not isinstance(value, Integral):  # the batch size
        raise ValueError(f"batch_size={value!r}: expected a positive integer")
    choices = {"rotation": TRANSFORMS, "distortion": DISTORTIONS, "schedule": SCHEDULES}
    for name, allowed in choices.items():
        value = parameters[name]
        if value not in list(allowed):
            expected = ", ".join(map(repr, allowed))
            raise ValueError(f"{name}={value!r}: expected one of {expected}")
    device = parameters["device"]
    try:
        return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except (RuntimeError, TypeError):  # torch's message lists all types of devices
        raise ValueError(
            f"device={device!r}: expected None or a device of torch, such as 'cpu', 'cuda' or "
            "'cuda:1'"
        ) from None


def validated(estimator: BaseEstimator, Z: ArrayLike, *, reset: bool = True) -> NDArray:
    """The rows Z [N, D], as float32 if all values of their type fit into it, else as float64.

    Raises ValueError for NaN, infinite values, other shapes, or other columns than in `fit`.
    """
    dtype = getattr(Z, "dtype", None)
    is_small = isinstance(dtype, np.dtype) and np.can_cast(dtype, np.float32)
    types = (np.float32, np.float64) if is_small else (np.float64, np.float32)
    try:
        return validate_data(estimator, Z, dtype=types, reset=reset)
    except ValueError as error:  # scikit-learn adds advice about its own estimators to NaN
        raise ValueError(str(error).partition("\nArrayCompressor does not")[0]) from error


@torch.enable_grad()
def train(
    rate: HFactorized,
    z: Tensor,
    generator: torch.Generator,
    *,
    beta: float,
    distortion: str,
    n_epochs: int,
    batch_size: int,
    lr: float,
    schedule: str,
    verbose: bool,
) -> None:
    """Fit `rate` to rows z [N, D], centred and in the unit of the distortion.

    `generator` must be on the device of z; it draws the noise and the order of rows. For the other
    parameters, see `ArrayCompressor`.
    """
    rate.prior.generator = generator
    rate.fit_transform(z)
    if distortion == "squared":
        # this width minimises the error width^2 / 12 plus beta times the rate -log(width)
        rate.start_from(z, cell_width=math.sqrt(6 * beta))
        rate.scaling.requires_grad_(False)
    n_batches = math.ceil(len(z) / batch_size)
    n_steps = max(math.ceil(n_epochs * n_batches), MIN_STEPS)
    parameters = [p for p in rate.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=lr)
    scheduler = SCHEDULES[schedule](optimizer, n_steps)
    batches = iter(())
    for _ in tqdm(range(n_steps), desc="ArrayCompressor", disable=not (verbose and sys.stderr)):
        rows = next(batches, None)
        if rows is None:
            order = torch.randperm(len(z), device=z.device, generator=generator)
            batches = iter(order.chunk(n_batches))
            rows = next(batches)
        z_hat, rates, _ = rate(z[rows])
        errors = DISTORTIONS[distortion](z_hat - z[rows]).sum(1)
        loss = (errors + beta * rates).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM)
        optimizer.step()
        scheduler.step()
    rate.prior.generator = None


def mean_and_scale(Z: NDArray) -> tuple[NDArray[np.float64], float]:
    """Mean [D] and `scale_` of rows Z [N, D].

    Raises ValueError if values exceed `LARGEST`, or if the scale is below `SMALLEST`.
    """
    largest = max(float(Z.max()), -float(Z.min()))
    if largest > LARGEST:
        raise ValueError(f"Z has values of size {largest:g}, {TOO_FAR}")
    mean, variances = Z.mean(0, dtype=np.float64), Z.var(0, dtype=np.float64)
    is_constant = np.sqrt(variances) <= RESOLUTION[Z.dtype] * np.abs(mean)
    variances[is_constant | (Z.min(0) == Z.max(0))] = 0.0
    scale = math.sqrt(variances.mean()) or largest or 1.0
    if scale < SMALLEST:
        raise ValueError(f"the columns of Z vary by {scale:g}, {TOO_FAR}")
    return mean, scale


@torch.no_grad()
def undo_standardisation(rate: HFactorized, mean: Tensor, scale: float) -> None:
    """Make `rate`, trained on (z - mean) / scale, code z itself with the same symbols."""
    if rate.transform is not None:
        rate.transform.update()
        mean = mean + scale * rate.transform.mean.double()
        rate.transform.mean.copy_(mean)
        mean = rate.transform.rotate_exactly(mean[None])[0]  # the remainder beyond float32
    biasing = rate.biasing.double() * scale - mean
    rate.biasing.copy_(biasing)
    rate.scaling.sub_(math.log(scale))
    # what float32 cannot hold of a large mean, in cells, shifts the prior
    offset = ((biasing - rate.biasing.double()) * rate.scaling.double().exp()).float()
    rate.prior.shift(torch.where(offset.abs() > MIN_SHIFT, offset, 0.0))
