"""Loading the weights of a bottleneck: the official code's, or our own."""

import os
import re
from typing import Any

import torch
from torch import Tensor

from lossyless.payloads import CodingError
from lossyless.rates import HFactorized
from lossyless.rates.factorized import TRANSFORM
from lossyless.weights import WeightsError

# `update` of CompressAI's model makes these from the others; the official files hold them empty
_DERIVED = {f"entropy_bottleneck.{name}" for name in ("_offset", "_quantized_cdf", "_cdf_length")}
_LEGACY_NAMES = {"matrix": "matrices", "bias": "biases", "factor": "factors"}
_EXTRA = "_extra_state"


def load_bottleneck(path: str | os.PathLike) -> HFactorized:
    """A rate from its weights, in evaluation mode and ready to code.

    Reads the state dict of an `HFactorized` with any transform, with its tables if it has them, and
    that of the official code, with the names of CompressAI 1.1 (`_matrix0`) or of later versions
    (`matrices.0`). The quantiles stay as they are, so that z_hat is that of the official format.

    Raises
    ------
    WeightsError
        The file is missing or foreign, a tensor in it is missing, unexpected or misshapen, or its
        transform is no rotation.
    """
    state = _canonical(_read(path))
    extra = state.pop(_EXTRA, {})
    if not isinstance(extra, dict):
        raise WeightsError(
            f"{path}: {_EXTRA}: expected coding tables, found {type(extra).__name__}"
        )
    biasing = state.get("biasing")
    if biasing is None or biasing.ndim != 1 or len(biasing) == 0:
        raise WeightsError(f"{path}: not the weights of a bottleneck: no vector `biasing`")
    try:
        with torch.random.fork_rng(devices=[]):  # weights are drawn before they are loaded
            rate = HFactorized(len(biasing), transform=extra.get(TRANSFORM, "none"))
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{path}: {error}") from error
    _check(state, rate, path)
    rate.prior.are_centres_fixed = True
    try:
        rate.load_state_dict(state | {_EXTRA: extra})
        _check_transform(rate, path)
        if not rate.has_tables:
            rate.update()
        n_tables = rate.tables["z"].n_tables
    except (ArithmeticError, AttributeError, CodingError, KeyError, TypeError) as error:
        raise WeightsError(f"{path}: no coding tables can be made of it: {error}") from error
    if n_tables != rate.z_dim:
        raise WeightsError(f"{path}: has {n_tables} coding tables for {rate.z_dim} dimensions")
    return rate.eval()


def _read(path: str | os.PathLike) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from None
    except Exception as error:  # torch.load raises nearly every kind for files of other kinds
        raise WeightsError(
            f"{path}: is not a file of weights of a bottleneck, or is damaged"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise WeightsError(f"{path}: expected a dict of tensors, found {type(state).__name__}")
    for name, value in state.items():
        if name != _EXTRA and not isinstance(value, Tensor):
            raise WeightsError(f"{path}: {name}: expected a tensor, found {type(value).__name__}")
    return state


def _canonical(state: dict[str, Any]) -> dict[str, Any]:
    """The state with the names that `HFactorized` has, without what is derived."""
    return {_name(name): value for name, value in state.items() if name not in _DERIVED}


def _name(official: str) -> str:
    name = re.sub(r"^entropy_bottleneck\.", "prior.", official)
    return re.sub(
        r"^prior\._(matrix|bias|factor)(\d+)$",
        lambda match: f"prior.{_LEGACY_NAMES[match[1]]}.{match[2]}",
        name,
    )


def _check(state: dict[str, Tensor], rate: HFactorized, path: str | os.PathLike) -> None:
    expected = {name: t.shape for name, t in rate.state_dict().items() if name != _EXTRA}
    found = {name: t.shape for name, t in state.items()}
    if expected == found:
        return
    missing, unexpected = sorted(expected.keys() - found), sorted(found.keys() - expected)
    misshapen = [
        f"{name} is {list(found[name])} rather than {list(shape)}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    parts = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    problems = "; ".join(f"{part}: {', '.join(names)}" for part, names in parts.items() if names)
    raise WeightsError(f"{path}: these are not the weights of a factorized rate. {problems}")


def _check_transform(rate: HFactorized, path: str | os.PathLike) -> None:
    if rate.transform is None:
        return
    try:
        rate.transform.check()
    except ValueError as error:
        raise WeightsError(f"{path}: transform: {error}") from error
