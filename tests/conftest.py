"""Fixtures: fitted rates, small compressors and trainers."""

import copy
import gc
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial

import pytest
import pytorch_lightning as pl
import torch
from helpers.toy import ENTROPY_CODED, SMALL_MLP, Z_DIM, fit_rate
from omegaconf import DictConfig

import utils.configs.composing
from lossyless.architectures import Linear
from lossyless.compressors import LearnableCompressor
from lossyless.distortions import ContrastiveDistortion, DirectDistortion, LossyZ
from lossyless.distributions import CondDist
from lossyless.optim import PartOptimizer
from lossyless.predictors import OnlineEvaluator
from lossyless.rates import HFactorized, Rate


def pytest_collection_finish() -> None:
    """Exclude imported objects from garbage collection, which Lightning triggers often."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Undo the exclusion at exit; otherwise, Triton reports these objects as leaked."""
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def kept_configs() -> Iterator[None]:
    """Cache what Hydra composes from conf/, because tests compose the same configs repeatedly."""
    read = cache(utils.configs.composing.compose)

    def compose(config_name: str, overrides: list[str], **options: bool) -> DictConfig:
        return read(config_name, tuple(overrides), **options).copy()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils.configs.composing, "compose", compose)
        yield


@pytest.fixture(scope="session")
def _fitted_rates() -> dict[str, Rate]:
    return {}


@pytest.fixture(params=ENTROPY_CODED)
def fitted(request, _fitted_rates) -> Rate:
    """A copy of each entropy-coded rate, fitted to vectors from `draw_z`, in evaluation mode."""
    name = request.param
    if name not in _fitted_rates:
        torch.manual_seed(0)
        _fitted_rates[name] = fit_rate(ENTROPY_CODED[name](Z_DIM))
    return copy.deepcopy(_fitted_rates[name])


@pytest.fixture
def make_compressor() -> Callable[..., LearnableCompressor]:
    """Build a compressor for data of `shape`, with the same weights every time.

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
    """Build a silent CPU trainer that writes nothing unless asked to."""
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
