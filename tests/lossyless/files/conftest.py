"""Fixtures: a codec, 100 features, their decoded values, and an output path."""

from pathlib import Path

import pytest
from helpers.stored_features import draw_features, make_codec, quantised
from torch import Tensor

from lossyless.rates import HFactorized


@pytest.fixture(scope="package")
def codec() -> HFactorized:
    return make_codec()


@pytest.fixture(scope="package")
def z() -> Tensor:
    return draw_features(100)


@pytest.fixture(scope="package")
def z_hat(codec, z) -> Tensor:
    return quantised(codec, z)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "z.lsl"
