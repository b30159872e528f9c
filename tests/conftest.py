"""Toy data, rates fitted to it, and small compressors and trainers."""

import copy
import gc
import hashlib
import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from torch import Tensor

import lossyless.rates
import utils.composing
from lossyless.architectures import MLP, Linear
from lossyless.batch import Batch
from lossyless.cdf_tables import TOTAL_MASS, CDFTables
from lossyless.compressors import LearnableCompressor
from lossyless.distortions import ContrastiveDistortion, DirectDistortion, LossyZ
from lossyless.distributions import CondDist
from lossyless.optim import PartOptimizer
from lossyless.predictors import OnlineEvaluator
from lossyless.rates import EntropyCodedRate, HFactorized, HHyper, HSpatial, Rate

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


def pytest_collection_finish() -> None:
    """Nothing that was imported will be freed: Lightning's collections need not look at it."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Let it be freed after all at exit, where Triton lists as leaked what is not."""
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def kept_configs() -> Iterator[None]:
    """What Hydra composed from conf/ is kept: tests ask for the same again and again."""
    read = cache(utils.composing.compose)

    def compose(config_name: str, overrides: list[str]) -> DictConfig:
        return read(config_name, tuple(overrides)).copy()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils.composing, "compose", compose)
        yield


def draw_z(n: int, seed: int = 0) -> Tensor:
    """Representations [n, Z_DIM] whose scale and mean depend on the example."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.tensor([[2.0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0.5, 0], [0, 1, 0, 3]])
    log_scale = torch.randn(n, 1, generator=generator)
    return 3 + log_scale.exp() * torch.randn(n, Z_DIM, generator=generator) @ mixing


def fit_rate(rate: Rate, n_steps: int = 400) -> Rate:
    """Fit a bottleneck to `draw_z`, on rate + squared error; ready to code."""
    torch.manual_seed(0)
    z = draw_z(4096)
    optimizer = torch.optim.Adam([p for p in rate.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(n_steps):
        batch = z[torch.randint(len(z), (256,))]
        z_hat, rates, _ = rate.train()(batch)
        optimizer.zero_grad()
        (rates + (z_hat - batch).square().sum(-1)).mean().backward()
        optimizer.step()
    rate.update()
    return rate.eval()


@pytest.fixture(scope="session")
def _fitted_rates() -> dict[str, Rate]:
    return {}


@pytest.fixture(params=ENTROPY_CODED)
def fitted(request, _fitted_rates) -> Rate:
    """A copy of each entropy-coded rate, fitted to `draw_z`, in evaluation mode."""
    name = request.param
    if name not in _fitted_rates:
        torch.manual_seed(0)
        _fitted_rates[name] = fit_rate(ENTROPY_CODED[name](Z_DIM))
    return copy.deepcopy(_fitted_rates[name])


@pytest.fixture
def make_compressor() -> Callable[..., LearnableCompressor]:
    """Builds a compressor of `shape` with the same weights every time.

    `method` is "VC", "VIC", "BINCE" or "lossy_Z"; `kwargs` go to the compressor.
    """

    def make(
        shape: tuple[int, ...] = (2,),
        method: str = "VIC",
        rate: Rate | None = None,
        kind: str = "vector",
        online_task: str | None = None,
        optimizer: PartOptimizer | None = None,
        online_optimizer: PartOptimizer | None = None,
        **kwargs,
    ) -> LearnableCompressor:
        torch.manual_seed(1)
        rate = HFactorized(Z_DIM) if rate is None else rate
        distortion = {
            "VC": lambda: DirectDistortion(SMALL_MLP, Z_DIM, shape, kind, "input"),
            "VIC": lambda: DirectDistortion(SMALL_MLP, Z_DIM, shape, kind, "representative"),
            "BINCE": lambda: ContrastiveDistortion(Z_DIM, SMALL_MLP),
            "lossy_Z": LossyZ,
        }[method]()
        adam = PartOptimizer(partial(torch.optim.Adam, lr=1e-2))
        online = OnlineEvaluator(Linear, (Z_DIM,), online_task, 10) if online_task else None
        return LearnableCompressor(
            CondDist(SMALL_MLP, shape, Z_DIM, rate.family),
            rate,
            distortion,
            optimizer or adam,
            online=online,
            online_optimizer=online_optimizer or adam,
            **kwargs,
        )

    return make


@pytest.fixture
def make_trainer(tmp_path) -> Callable[..., pl.Trainer]:
    """Builds a silent trainer on the CPU that writes nothing unless asked to."""
    warnings.filterwarnings("ignore", module="pytorch_lightning")

    def make(max_epochs: int = 1, **kwargs) -> pl.Trainer:
        defaults = {
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "reload_dataloaders_every_n_epochs": 1,
            "default_root_dir": tmp_path,
        }
        return pl.Trainer(max_epochs=max_epochs, **(defaults | kwargs))

    return make


class Batches:
    """A loader of given batches: lists would be taken for lists of loaders."""

    def __init__(self, batches: Iterable[Batch]):
        self.batches = list(batches)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


def trainable(module: torch.nn.Module) -> dict[str, Tensor]:
    """Copies of the parameters that training moves, by name."""
    return {n: p.detach().clone() for n, p in module.named_parameters() if p.requires_grad}


def assert_same_tensors(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Bit-for-bit equality of two dicts of tensors."""
    assert found.keys() == expected.keys()
    different = [name for name in found if not torch.equal(found[name], expected[name])]
    assert not different


def digest_of(tables: CDFTables) -> str:
    """What tells coding tables from others: 32 hexadecimal digits (BLAKE2b)."""
    digest = hashlib.blake2b(digest_size=16)
    for array in (tables.lengths, tables.offsets, tables.cdfs[tables.cdfs < TOTAL_MASS]):
        digest.update(np.int64(array.size).astype("<i8").tobytes())
        digest.update(array.astype("<i4").tobytes())
    return digest.hexdigest()
