"""Digests by which a receiver recognises the model that a file was written with."""

from collections.abc import Mapping
from hashlib import blake2b

from torch import Tensor


def fingerprint(codec: str, state: Mapping[str, object]) -> str:
    """32 hexadecimal digits of the name of a format and of all tensors in a (nested) state dict."""
    digest = blake2b(codec.encode(), digest_size=16)
    for name, tensor in sorted(_tensors(state).items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _tensors(state: Mapping[str, object], prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a (nested) state dict by their full names."""
    tensors = {}
    for name, value in state.items():
        if isinstance(value, Tensor):
            tensors[prefix + name] = value
        elif isinstance(value, Mapping):
            tensors |= _tensors(value, f"{prefix}{name}.")
    return tensors
