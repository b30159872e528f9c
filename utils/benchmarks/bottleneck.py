"""Bottlenecks for features of CLIP's size, vectors sampled from them, and CompressAI's reference.

Our code and the reference share weights; the reference builds its own tables from them.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from compressai.entropy_models import EntropyBottleneck
from compressai.models.utils import remap_old_keys
from torch import Tensor

from lossyless.hub import RELEASED
from lossyless.hub.weights import load_bottleneck
from lossyless.rates import HFactorized
from lossyless.torch_state import drawing_from

MODEL = "b005"
NAME = "entropy_bottleneck"  # name of the prior in weight files
# give a random prior approximately the entropy and table sizes of the released one
NARROWING, TAIL = 12.0, 11.0


class PerVectorCoder:
    """The coder of the paper's code: CompressAI's bottleneck, with one stream per vector.

    Parameters
    ----------
    weights : state dict of released weights, with current or old parameter names of CompressAI.
    """

    def __init__(self, weights: dict[str, Tensor]):
        self.biasing, self.scaling = weights["biasing"], weights["scaling"]
        self.bottleneck = EntropyBottleneck(len(self.biasing)).eval().requires_grad_(False)
        found = remap_old_keys(NAME, dict(weights))
        own = self.bottleneck.state_dict()
        buffers = {"_offset", "_quantized_cdf", "_cdf_length"}  # rebuilt by `update`
        own |= {name: found[f"{NAME}.{name}"] for name in own.keys() - buffers}
        self.bottleneck.load_state_dict(own)
        self.bottleneck.update(force=True)

    def encode(self, z: Tensor) -> list[bytes]:
        """One stream per row of `z` [N, D]."""
        return self.bottleneck.compress((z + self.biasing) * self.scaling.exp())

    def decode(self, streams: list[bytes]) -> Tensor:
        """z_hat [N, D], float32."""
        z_hat_in = self.bottleneck.decompress(streams, ())
        return z_hat_in * (-self.scaling).exp() - self.biasing


@dataclass(frozen=True)
class Bottleneck:
    """A bottleneck in our code and in CompressAI, with the same weights.

    Attributes
    ----------
    rate : our implementation, with its coding tables.
    reference : CompressAI's implementation.
    name : the source of the weights.
    """

    rate: HFactorized
    reference: PerVectorCoder
    name: str

    def draw(self, n: int) -> tuple[np.ndarray, Tensor]:
        """Symbols int32 [n, D], drawn with the tables' probabilities, and their vectors [n, D].

        Their coded size can be compared with the entropy of the model. No symbol is escaped.
        """
        tables = self.rate.tables["z"]
        random = np.random.default_rng(0)
        columns = []
        for cdf, length, offset in zip(tables.cdfs, tables.lengths, tables.offsets, strict=True):
            listed = cdf[: length - 1]  # without the escape entry, which comes last
            drawn = random.integers(listed[-1], size=n)
            columns.append(np.searchsorted(listed, drawn, side="right") - 1 + offset)
        symbols = np.stack(columns, axis=1).astype(np.int32)
        return symbols, self.rate.dequantise(symbols)


def load_released() -> Bottleneck:
    """The released weights if torch.hub has cached them, else `make_bottleneck(512)`.

    Nothing is downloaded, so that benchmarks run offline.
    """
    path = Path(torch.hub.get_dir(), "checkpoints", Path(RELEASED[MODEL].url).name)
    if not path.is_file():
        return make_bottleneck(512)
    return _load(path, f"released {MODEL}")


def make_bottleneck(z_dim: int) -> Bottleneck:
    """A random prior, approximately as broad as the released one."""
    with drawing_from(torch.Generator().manual_seed(0)):
        prior = EntropyBottleneck(z_dim).requires_grad_(False)
    first = prior.state_dict()["matrices.0"]  # acts through a softplus, before any offset
    first.copy_((F.softplus(first) * NARROWING).expm1().log())
    prior.update(force=True, update_quantiles=True)
    low, median, high = prior.quantiles.unbind(-1)
    tails = torch.maximum(low, median - TAIL), torch.minimum(high, median + TAIL)
    prior.quantiles.copy_(torch.stack([tails[0], median, tails[1]], dim=-1))
    weights: dict[str, Any] = {f"{NAME}.{name}": v for name, v in prior.state_dict().items()}
    weights |= {"biasing": torch.zeros(z_dim), "scaling": torch.ones(z_dim)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "bottleneck.pt")
        torch.save(weights, path)
        return _load(path, "random prior")


def _load(path: Path, name: str) -> Bottleneck:
    weights = torch.load(path, map_location="cpu", weights_only=True)
    return Bottleneck(load_bottleneck(path), PerVectorCoder(weights), name)
