"""Devices for the tests that need a GPU; each test also runs on a CPU, with smaller data."""

from collections.abc import Callable

import pytest
import torch


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request) -> torch.device:
    """The CPU, as a rehearsal, and the GPU, which `-m cuda` selects."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    return torch.device(request.param)


@pytest.fixture
def report() -> Callable[[str], None]:
    """Print a result on its own line; visible with `pytest -s`."""
    return lambda text: print(f"\nRESULT {text}", flush=True)
