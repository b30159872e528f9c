"""Weights on disk: PyTorch checkpoints and NumPy archives, whole, and loaded strictly."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lossyless.weights import WeightsError

WRAPPERS = ("state_dict", "model_state_dict", "model")  # under which trainers keep the weights
MAX_NAMED = 5  # tensors in an error


def read_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """The content of a .npz archive, or of a file of torch.save.

    Raises
    ------
    WeightsError
        If it is missing, damaged or something else.
    """
    path = Path(path)
    try:
        check_archive(path)
        content = _read(path)
    except OSError as error:
        raise WeightsError(f"{path} could not be read: {error.strerror or error}") from error
    except (WeightsError, MemoryError):
        raise
    except Exception as error:  # nearly every kind, for files of other kinds
        raise WeightsError(
            f"{path} could not be read: it is damaged, or neither a state dict of torch.save nor "
            "arrays of np.savez as .npz"
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: expected a state dict, found a {type(content).__name__}.")
    return content


def check_archive(path: str | os.PathLike) -> None:
    """That a zip archive, as torch.save writes them, is whole; torch.load reads damaged ones.

    Other files are left to their readers.

    Raises
    ------
    WeightsError
        If a checksum in the archive does not match, or the archive cannot be read.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (OSError, MemoryError):
        raise
    except Exception as error:  # nearly every kind: damage changes methods, sizes, flags, names
        raise WeightsError(f"{path} could not be read: the archive is damaged") from error
    if damaged is not None:
        raise WeightsError(
            f"{path} could not be read: it is damaged, for a checksum does not match ({damaged}). "
            "Get it anew; if it was saved without checksums (set_crc32_options of "
            "torch.serialization), save it with them"
        )


def _read(path: Path) -> Any:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return {name: torch.from_numpy(archive[name]) for name in archive.files}
    return torch.load(path, map_location="cpu", weights_only=True)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their names, without wrappers and prefixes of trainers."""
    content = read_checkpoint(path)
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    return {name.removeprefix("module."): value for name, value in content.items()}


def load_strictly(network: nn.Module, state: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Load tensors into a network; a missing or unexpected one, or another shape, is an error.

    Raises
    ------
    WeightsError
        If they do not fit; the message names the tensors.
    """
    own = network.state_dict()
    # older checkpoints do not have these counts, which nothing uses in evaluation
    missing = [n for n in own if n not in state and not n.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    differ = [
        f"{name} is {_shape(state[name])}, expected {_shape(value)}"
        for name, value in own.items()
        if isinstance(value, Tensor) and name in state and _shape(state[name]) != _shape(value)
    ]
    problems = [
        f"{len(names)} {kind}: {', '.join(names[:MAX_NAMED])}{', ...' * (len(names) > MAX_NAMED)}"
        for kind, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", differ),
        )
        if names
    ]
    if problems:
        raise WeightsError(
            f"{path} does not fit {type(network).__name__}: tensors {'; '.join(problems)}. Give "
            "the weights of this network, or choose the network of these weights."
        )
    network.load_state_dict({**own, **state})


def _shape(value: Any) -> list[int] | str:
    """Of a tensor; of something else, its type."""
    return [*value.shape] if isinstance(value, Tensor) else type(value).__name__
