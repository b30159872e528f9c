"""Loading the weights of a bottleneck: the official code's, or our own."""

import os
import re
from typing import Any

import torch
from torch import Tensor

from lossyless.coding.payloads import CodingError
from lossyless.rates import HFactorized
from lossyless.rates.entropy_coded import TRANSFORM
from lossyless.state_dicts import load_strictly, read_checkpoint
from lossyless.weights import WeightsError

# `update` of CompressAI's model makes these from the others; the official files hold them empty
_DERIVED = {f"entropy_bottleneck.{name}" for name in ("_offset", "_quantized_cdf", "_cdf_length")}
_LEGACY_NAMES = {"matrix": "matrices", "bias": "biases", "factor": "factors"}
_EXTRA = "_extra_state"
_ARRAY_COMPRESSOR = b"LLmodel1"  # FILE_MAGIC of its module, which needs scikit-learn


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
    if rate.transform is not None:
        rate.transform.expect_mean("transform.mean" in state)
    rate.prior.are_centres_fixed = True
    try:
        load_strictly(rate, state | {_EXTRA: extra}, path)
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
    _check_is_no_array_compressor(path)
    state = read_checkpoint(path)
    for name, value in state.items():
        if not isinstance(name, str):
            raise WeightsError(f"{path}: expected names of tensors, found {name!r}")
        if name != _EXTRA and not isinstance(value, Tensor):
            raise WeightsError(f"{path}: {name}: expected a tensor, found {type(value).__name__}")
    return state


def _check_is_no_array_compressor(path: str | os.PathLike) -> None:
    try:
        with open(path, "rb") as file:
            head = file.read(len(_ARRAY_COMPRESSOR))
    except OSError as error:
        raise WeightsError(f"{path} could not be read: {error.strerror}") from error
    if head == _ARRAY_COMPRESSOR:
        raise WeightsError(
            f"{path}: was written by ArrayCompressor.save, and is read by ArrayCompressor.load"
        )


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


def _check_transform(rate: HFactorized, path: str | os.PathLike) -> None:
    if rate.transform is None:
        return
    try:
        rate.transform.check()
    except ValueError as error:
        raise WeightsError(f"{path}: transform: {error}") from error
