"""Devices of the tests that ask what only a GPU can tell: each also runs on a CPU, but smaller."""

from collections.abc import Callable

import pytest
import torch


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request) -> torch.device:
    """The CPU, as a rehearsal, and the GPU; `-m cuda` selects the latter."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    return torch.device(request.param)


@pytest.fixture
def report() -> Callable[[str], None]:
    """Prints a finding as a line of its own; visible with `pytest -s`."""
    return lambda text: print(f"\nRESULT {text}", flush=True)
