"""Bytes that must never change: what fixed weights make of fixed features.

Files on people's disks are read with what these digests stand for. A format that is changed on
purpose gets a new name or version, and `python tests/lossyless/test_golden.py` writes golden.json
anew.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lossyless.classical import RawPixels
from lossyless.rates import EntropyCodedRate, HFactorized, HHyper, HSpatial
from lossyless.vector_codecs import PCAVectors, RawVectors, UniformVectors

GOLDEN = Path(__file__).with_name("golden.json")
N, Z_DIM, SHAPE = 300, 8, (3, 5, 4)
CODECS: dict[str, Callable[[], nn.Module]] = {
    "factorized": lambda: HFactorized(Z_DIM),
    "factorized_klt": lambda: HFactorized(Z_DIM, transform="klt"),
    "factorized_klt_refined": lambda: HFactorized(Z_DIM, transform="klt_refined"),
    "hyperprior": lambda: HHyper(Z_DIM),
    "hyperprior_klt": lambda: HHyper(Z_DIM, transform="klt"),
    "hyperprior_without_means": lambda: HHyper(Z_DIM, side_z_dim=3, is_pred_mean=False),
    "spatial_hyperprior": lambda: HSpatial(Z_DIM, latent_side=2),
    "float16": lambda: RawVectors(Z_DIM),
    "float32": lambda: RawVectors(Z_DIM, "float32"),
    "int3": lambda: UniformVectors(Z_DIM, 3),
    "int8": lambda: UniformVectors(Z_DIM, 8),
    "pca": lambda: PCAVectors(Z_DIM, 3),
    "pixels": lambda: RawPixels(SHAPE),
}


def fixed(name: str, shape: tuple[int, ...], unit: float) -> Tensor:
    """Multiples of a unit up to 255, from integers that are the same on every machine."""
    rng = np.random.default_rng([*name.encode()])
    return torch.from_numpy(unit * rng.integers(-255, 256, shape).astype(np.float64)).float()


def with_fixed_weights(codec: nn.Module) -> nn.Module:
    for name, parameter in codec.named_parameters():
        parameter.data.add_(fixed(name, tuple(parameter.shape), 2**-10))
    for name, buffer in codec.named_buffers():
        if name in ("transform.matrix", "transform.start"):  # a reflection, in exact numbers
            buffer.copy_(torch.eye(len(buffer)) - 2 / len(buffer))
    if isinstance(codec, UniformVectors):
        codec.fit(fixed("extremes", (9, Z_DIM), 2**-5))
    if isinstance(codec, PCAVectors):
        codec.mean.copy_(fixed("mean", (Z_DIM,), 2**-7))
        codec.axes.copy_(torch.eye(3, Z_DIM))
        codec.is_fitted.fill_(True)
    if isinstance(codec, EntropyCodedRate):
        codec.update()
    return codec.eval()


def digests(name: str) -> dict[str, str]:
    torch.manual_seed(0)
    codec = with_fixed_weights(CODECS[name]())
    is_image = name == "pixels"
    x = fixed("x", (N, *SHAPE), 1 / 255).abs() if is_image else fixed("x", (N, Z_DIM), 2**-5)
    plain = codec.compress(x[12:])
    if not is_image:
        x[7, 2], x[11] = 3000.0, -700.0  # escapes
    payload = codec.compress(x)
    decoded = codec.decompress(payload, N).numpy()
    facts = {"plain": plain, "payload": payload, "decoded": decoded.tobytes()}
    return {"fingerprint": codec.fingerprint()} | {
        key: hashlib.sha256(value).hexdigest()[:16] for key, value in facts.items()
    }


@pytest.mark.parametrize("name", CODECS)
def test_bytes_are_those_that_were_written_before(name):
    found = digests(name)
    assert found == json.loads(GOLDEN.read_text())[name]


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({name: digests(name) for name in CODECS}, indent=1) + "\n")
