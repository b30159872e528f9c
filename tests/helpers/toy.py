"""Toy data, rates fitted to it, and comparisons of tensors."""

import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

import lossyless.rates
from lossyless.architectures import MLP
from lossyless.base import Batch
from lossyless.coding.tables import TOTAL_MASS, CDFTables
from lossyless.rates import EntropyCodedRate, HHyper, HSpatial, Rate

Z_DIM = 4
RATES = [getattr(lossyless.rates, name) for name in lossyless.rates.__all__]
RATES = [rate for rate in RATES if not inspect.isabstract(rate)]
NEEDED_OPTIONS = {HSpatial: {"latent_side": 2}}
ENTROPY_CODED: dict[str, Callable[..., Rate]] = {
    rate.__name__: partial(rate, **NEEDED_OPTIONS.get(rate, {}))
    for rate in RATES
    if issubclass(rate, EntropyCodedRate)
}
ENTROPY_CODED["HHyper_zero_mean"] = partial(HHyper, is_pred_mean=False)
SMALL_MLP = partial(MLP, hid_dim=16, n_hidden_layers=1)


def draw_z(n: int, seed: int = 0) -> Tensor:
    """Representations [n, Z_DIM] whose scale and mean depend on the example."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.tensor([[2.0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0.5, 0], [0, 1, 0, 3]])
    log_scale = torch.randn(n, 1, generator=generator)
    return 3 + log_scale.exp() * torch.randn(n, Z_DIM, generator=generator) @ mixing


def fit_rate(
    rate: Rate, n_steps: int = 150, *, z: Tensor | None = None, beta: float = 1.0, lr: float = 2e-2
) -> Rate:
    """Minimise beta * rate + squared error on z (default: `draw_z`), and build coding tables."""
    torch.manual_seed(0)
    z = draw_z(4096) if z is None else z
    parameters = [p for p in rate.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=lr)
    for _ in range(n_steps):
        batch = z[torch.randint(len(z), (256,), device=z.device)]
        z_hat, rates, _ = rate.train()(batch)
        optimizer.zero_grad()
        (beta * rates + (z_hat - batch).square().sum(-1)).mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)  # z has heavy tails
        optimizer.step()
    rate.update()
    return rate.eval()


class Batches:
    """A loader of given batches; Lightning would mistake a list for a list of loaders."""

    def __init__(self, batches: Iterable[Batch]):
        self.batches = list(batches)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


def trainable(module: torch.nn.Module) -> dict[str, Tensor]:
    """Copies of the trainable parameters, keyed by name."""
    return {n: p.detach().clone() for n, p in module.named_parameters() if p.requires_grad}


def assert_same_tensors(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Assert that two dicts of tensors are bit-for-bit equal."""
    assert found.keys() == expected.keys()
    different = [name for name in found if not torch.equal(found[name], expected[name])]
    assert not different


def digest_of(tables: CDFTables) -> str:
    """A digest that identifies coding tables: 32 hexadecimal digits (BLAKE2b)."""
    digest = hashlib.blake2b(digest_size=16)
    for array in (tables.lengths, tables.offsets, tables.cdfs[tables.cdfs < TOTAL_MASS]):
        digest.update(np.int64(array.size).astype("<i8").tobytes())
        digest.update(array.astype("<i4").tobytes())
    return digest.hexdigest()
