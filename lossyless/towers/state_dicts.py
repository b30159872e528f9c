"""Weights of towers on disk: PyTorch checkpoints and NumPy archives, loaded strictly."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lossyless.weights import WeightsError

WRAPPERS = ("state_dict", "model_state_dict", "model")  # under which trainers keep the weights
MAX_NAMED = 5  # tensors in an error


def read_checkpoint(path: Path) -> dict:
    """The content of a .npz archive, or of a file of torch.save.

    Raises
    ------
    WeightsError
        If it is damaged or something else.
    """
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return {name: torch.from_numpy(archive[name]) for name in archive.files}
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        OSError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        zipfile.BadZipFile,
        pickle.UnpicklingError,
    ) as error:
        raise WeightsError(
            f"{path} could not be read: {error}. Expected a state dict of torch.save, or arrays of "
            "np.savez as .npz."
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: expected a state dict, found a {type(content).__name__}.")
    return content


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their names, without wrappers and prefixes of trainers."""
    content = read_checkpoint(path)
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    return {name.removeprefix("module."): value for name, value in content.items()}


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
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
    differ = [n for n, value in own.items() if n in state and state[n].shape != value.shape]
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
